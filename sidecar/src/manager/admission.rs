//! Which loads may run: pure.

use crate::job::AlluxioPath;

/// Indices of loads that may start now. `loads`: path and whether it runs already, in the order of their
/// coming. First come, first served, except that a load which must wait for an overlapping one does not
/// hold up those behind it.
#[must_use]
pub(super) fn admit(loads: &[(&AlluxioPath, bool)], limit: usize) -> Vec<usize> {
    let mut running = loads.iter().filter(|(_, runs)| *runs).count();
    let mut admitted = Vec::new();
    for (index, (path, runs)) in loads.iter().enumerate() {
        if *runs || running >= limit {
            continue;
        }
        // Overlapping loads run in the order of their coming, so earlier waiting ones count too.
        let blocked = loads.iter().enumerate().any(|(other, (other_path, other_runs))| {
            (*other_runs || other < index) && other != index && path.overlaps(other_path)
        });
        if !blocked {
            running += 1;
            admitted.push(index);
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> AlluxioPath {
        AlluxioPath::try_from(text.to_owned()).unwrap()
    }

    fn check(loads: &[(&str, bool)], limit: usize, wanted: &[usize]) {
        let paths: Vec<_> = loads.iter().map(|(p, runs)| (path(p), *runs)).collect();
        let loads: Vec<_> = paths.iter().map(|(p, runs)| (p, *runs)).collect();
        assert_eq!(admit(&loads, limit), wanted);
    }

    #[test]
    fn first_come_first_served_up_to_the_limit() {
        check(&[("/a", false), ("/b", false), ("/c", false)], 2, &[0, 1]);
        check(&[("/a", true), ("/b", false), ("/c", false)], 2, &[1]);
    }

    #[test]
    fn overlapping_loads_run_one_after_the_other() {
        check(&[("/a", true), ("/a/b", false), ("/c", false)], 4, &[2]);
        check(&[("/a", false), ("/", false), ("/b", false)], 4, &[0]);
        check(&[("/a", false), ("/a", false)], 4, &[0]);
    }

    proptest! {
        #[test]
        fn never_two_that_overlap_and_never_none_that_could(
            picks in prop::collection::vec(0usize..6, 0..20), limit in 1usize..5,
        ) {
            let names = ["/", "/a", "/a/b", "/b", "/b/c/d", "/c"].map(path);
            let mut loads: Vec<(&AlluxioPath, bool)> = picks.iter().map(|p| (&names[*p], false)).collect();
            while !loads.is_empty() {
                for index in admit(&loads, limit) {
                    loads[index].1 = true;
                }
                let running: Vec<_> = loads.iter().filter(|(_, runs)| *runs).collect();
                prop_assert!(!running.is_empty() && running.len() <= limit);
                for (i, a) in running.iter().enumerate() {
                    prop_assert!(running[i + 1..].iter().all(|b| !a.0.overlaps(b.0)));
                }
                let first = loads.iter().position(|(_, runs)| *runs).unwrap();
                loads.remove(first);
            }
        }
    }
}
