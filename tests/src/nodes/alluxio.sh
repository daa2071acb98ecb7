#!/bin/sh
# bin/alluxio and /entrypoint.sh of the image: what Alluxio's own scripts do for what is run in it. The process
# becomes the JVM. Options come from the environment, as there: ALLUXIO_JAVA_OPTS for everything, and
# ALLUXIO_{MASTER,JOB_MASTER,WORKER,JOB_WORKER,USER}_JAVA_OPTS.
home=${ALLUXIO_HOME:-/opt/alluxio}
role=shell
heap=256m
case "$1" in
  master-only) role=master class=alluxio.master.AlluxioMaster heap=512m own=$ALLUXIO_MASTER_JAVA_OPTS ;;
  job-master) role=job-master class=alluxio.master.AlluxioJobMaster own=$ALLUXIO_JOB_MASTER_JAVA_OPTS ;;
  worker-only) role=worker class=alluxio.worker.AlluxioWorker heap=320m own=$ALLUXIO_WORKER_JAVA_OPTS ;;
  job-worker) role=job-worker class=alluxio.worker.AlluxioJobWorker own=$ALLUXIO_JOB_WORKER_JAVA_OPTS ;;
  fs) class=alluxio.cli.fs.FileSystemShell own=$ALLUXIO_USER_JAVA_OPTS ;;
  fsadmin) class=alluxio.cli.fsadmin.FileSystemAdminShell own=$ALLUXIO_USER_JAVA_OPTS ;;
  job) class=alluxio.cli.job.JobShell own=$ALLUXIO_USER_JAVA_OPTS ;;
  getConf) class=alluxio.cli.GetConf own=$ALLUXIO_USER_JAVA_OPTS ;;
  # The journal of the master's hostname alone.
  formatJournal) class=alluxio.cli.Format own=$ALLUXIO_MASTER_JAVA_OPTS ;;
  *) echo "usage: alluxio fs|fsadmin|job|getConf|formatJournal|master-only|job-master|worker-only|job-worker" >&2; exit 1 ;;
esac
command=$1
shift
case "$command" in
  formatJournal) set -- MASTER ;;
  # Their only option, --no-format, is what happens anyway.
  master-only | job-master | worker-only | job-worker) set -- ;;
esac
[ "$role" = shell ] && log=log4j-shell || log=log4j
[ -n "$ALLUXIO_MASTER_HOSTNAME" ] && host=-Dalluxio.master.hostname=$ALLUXIO_MASTER_HOSTNAME
# shellcheck disable=SC2086 # options are split on purpose
exec /opt/java/bin/java -Xmx$heap -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xss512k \
  -cp "$home/conf:$home/lib/*" -Dlog4j.configuration="file:$home/conf/$log.properties" \
  -Dalluxio.home="$home" -Dalluxio.conf.dir="$home/conf" -Dalluxio.logs.dir="$home/logs" \
  $host $ALLUXIO_JAVA_OPTS $own $class "$@"
