//! A container image: files, and how to run them, written as an OCI archive with one layer that is not packed.
//!
//! Invariants: the same contents give the same archive; everything belongs to root unless it is said otherwise;
//! every folder above a file is there, and /proc, /sys, /dev, /etc and /tmp are in every image.

use anyhow::{Context, Result};
use ring::digest::{Context as Digest, SHA256, digest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// What the layer's entries are read and written through.
const BUFFER: usize = 1 << 20;
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// What lies at one path. Owners are user and group alike.
#[derive(Debug, Clone)]
enum Entry {
    Folder { mode: u32, owner: u64 },
    Text { text: String, mode: u32 },
    Copy { source: PathBuf, mode: u32 },
    Link { target: String },
}

/// See the module. Built up by its methods.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    /// By path without the leading slash, hence a folder comes before what is in it.
    entries: BTreeMap<String, Entry>,
    config: Value,
}

impl Image {
    /// `name` is complete: `docker.io/library/busybox:1`.
    pub fn new(name: &str) -> Self {
        let image = Self { name: name.to_owned(), entries: BTreeMap::new(), config: json!({ "Env": [] }) };
        let image = image.folder("/tmp", 0o1777, 0);
        ["/dev", "/etc", "/proc", "/sys"].iter().fold(image, |image, path| image.folder(path, 0o755, 0))
    }

    /// What a pod names.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn entry(mut self, path: &str, entry: Entry) -> Self {
        self.entries.insert(path.trim_start_matches('/').to_owned(), entry);
        self
    }

    #[must_use]
    pub fn folder(self, path: &str, mode: u32, owner: u64) -> Self {
        self.entry(path, Entry::Folder { mode, owner })
    }

    #[must_use]
    pub fn text(self, path: &str, mode: u32, text: &str) -> Self {
        self.entry(path, Entry::Text { text: text.to_owned(), mode })
    }

    /// A file of this machine; what a symbolic link leads to.
    #[must_use]
    pub fn copy(self, path: &str, mode: u32, source: &Path) -> Self {
        self.entry(path, Entry::Copy { source: source.to_owned(), mode })
    }

    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, Entry::Link { target: target.to_owned() })
    }

    /// All files below a folder of this machine, executable where they are here.
    pub fn tree(mut self, path: &str, source: &Path) -> Result<Self> {
        let entries = fs::read_dir(source).with_context(|| format!("read {}", source.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", source.display()))?;
            let below = format!("{path}/{}", entry.file_name().to_string_lossy());
            let metadata =
                fs::metadata(entry.path()).with_context(|| format!("look at {}", entry.path().display()))?;
            self = if metadata.is_dir() {
                self.tree(&below, &entry.path())?
            } else {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                self.copy(&below, if executable { 0o755 } else { 0o644 }, &entry.path())
            };
        }
        Ok(self)
    }

    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.config["Entrypoint"] = json!(words);
        self
    }

    /// What follows the entry point unless a pod says otherwise.
    #[must_use]
    pub fn arguments(mut self, words: &[&str]) -> Self {
        self.config["Cmd"] = json!(words);
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        if let Some(environment) = self.config["Env"].as_array_mut() {
            environment.push(json!(format!("{name}={value}")));
        }
        self
    }

    #[must_use]
    pub fn user(mut self, number: u32) -> Self {
        self.config["User"] = json!(format!("{number}:{number}"));
        self
    }

    /// Writes the archive. Needs room for the layer twice.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer_path = archive.with_extension("layer");
        let layer =
            self.write_layer(&layer_path).with_context(|| format!("write a layer of {}", self.name))?;
        let written = self.write_archive(archive, &layer_path, &layer);
        fs::remove_file(&layer_path).context("remove the layer")?;
        written.with_context(|| format!("write {}", archive.display()))
    }

    fn write_layer(&self, path: &Path) -> Result<Blob> {
        let file =
            Hashing { inner: BufWriter::with_capacity(BUFFER, File::create(path)?), blob: Blob::new() };
        let mut layer = Builder::new(file);
        for (path, entry) in self.with_parents() {
            append(&mut layer, &path, &entry).with_context(|| format!("/{path}"))?;
        }
        let mut file = layer.into_inner()?;
        file.inner.flush()?;
        Ok(file.blob)
    }

    fn with_parents(&self) -> BTreeMap<String, Entry> {
        let mut all = self.entries.clone();
        let parents = self.entries.keys().flat_map(|path| Path::new(path).ancestors().skip(1));
        let parents: BTreeSet<_> = parents.map(|path| path.to_string_lossy().into_owned()).collect();
        for parent in parents.into_iter().filter(|path| !path.is_empty()) {
            all.entry(parent).or_insert(Entry::Folder { mode: 0o755, owner: 0 });
        }
        all
    }

    fn write_archive(&self, path: &Path, layer_path: &Path, layer: &Blob) -> Result<()> {
        let layer_digest = layer.digest();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            "history": [{ "created": EPOCH, "created_by": "the tests" }],
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &sha256(&config), config.len() as u64),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.size)],
        })
        .to_string();
        let mut described = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            &sha256(&manifest),
            manifest.len() as u64,
        );
        described["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        })
        .to_string();
        let mut archive = Builder::new(BufWriter::with_capacity(BUFFER, File::create(path)?));
        let blobs =
            [&config, &manifest].map(|text| (format!("blobs/sha256/{}", sha256(text)), text.as_str()));
        let texts = [
            ("oci-layout".to_owned(), r#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json".to_owned(), &index),
        ];
        for (path, text) in texts.into_iter().chain(blobs) {
            let mut header = header(EntryType::Regular, 0o644, 0, text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes())?;
        }
        let mut header = header(EntryType::Regular, 0o644, 0, layer.size);
        let mut file = File::open(layer_path)?;
        file.rewind()?;
        archive.append_data(&mut header, format!("blobs/sha256/{layer_digest}"), file)?;
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

fn append(layer: &mut Builder<impl Write>, path: &str, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Folder { mode, owner } => {
            let mut header = header(EntryType::Directory, *mode, *owner, 0);
            layer.append_data(&mut header, path, io::empty())?;
        }
        Entry::Text { text, mode } => {
            let mut header = header(EntryType::Regular, *mode, 0, text.len() as u64);
            layer.append_data(&mut header, path, text.as_bytes())?;
        }
        Entry::Copy { source, mode } => {
            let file = File::open(source).with_context(|| format!("open {}", source.display()))?;
            let mut header = header(EntryType::Regular, *mode, 0, file.metadata()?.len());
            layer.append_data(&mut header, path, BufReader::with_capacity(BUFFER, file))?;
        }
        Entry::Link { target } => {
            let mut header = header(EntryType::Symlink, 0o777, 0, 0);
            layer.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32, owner: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

/// In hexadecimal digits.
pub(super) fn sha256(text: &str) -> String {
    hexadecimal(digest(&SHA256, text.as_bytes()).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Size and digest of what was written.
struct Blob {
    size: u64,
    digest: Digest,
}

impl Blob {
    fn new() -> Self {
        Self { size: 0, digest: Digest::new(&SHA256) }
    }

    fn digest(&self) -> String {
        hexadecimal(self.digest.clone().finish().as_ref())
    }
}

struct Hashing<W> {
    inner: W,
    blob: Blob,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.blob.size += written as u64;
        self.blob.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(archive: &Path) -> Vec<String> {
        let mut archive = tar::Archive::new(File::open(archive).unwrap());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn text(archive: &Path, name: &str) -> String {
        let mut archive = tar::Archive::new(File::open(archive).unwrap());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|entry| entry.path().unwrap().to_string_lossy() == name).unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn digests_lead_from_the_index_to_every_file() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let image = Image::new("example/name:1").text("/opt/a/b", 0o755, "hello").link("/bin/b", "/opt/a/b");
        image.user(7).entrypoint(&["/bin/b"]).write(&archive).unwrap();

        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            format!("blobs/{digest}")
        };
        let index: Value = serde_json::from_str(&text(&archive, "index.json")).unwrap();
        let manifest = text(&archive, &blob(&index["manifests"][0]));
        assert_eq!(index["manifests"][0]["size"], manifest.len());
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let config: Value = serde_json::from_str(&text(&archive, &blob(&manifest["config"]))).unwrap();
        assert_eq!(config["config"], json!({ "Env": [], "User": "7:7", "Entrypoint": ["/bin/b"] }));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);

        let layer = folder.path().join("layer.tar");
        fs::write(&layer, text(&archive, &blob(&manifest["layers"][0]))).unwrap();
        assert_eq!(
            sha256(&fs::read_to_string(&layer).unwrap()),
            config["rootfs"]["diff_ids"][0].as_str().unwrap()[7..]
        );
        let expected = ["bin", "bin/b", "dev", "etc", "opt", "opt/a", "opt/a/b", "proc", "sys", "tmp"];
        assert_eq!(names(&layer), expected);
        assert_eq!(text(&layer, "opt/a/b"), "hello");
    }

    #[test]
    fn the_same_contents_give_the_same_archive() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |name: &str| {
            let archive = folder.path().join(name);
            Image::new("example/name:1").text("/a", 0o644, "hello").write(&archive).unwrap();
            fs::read(archive).unwrap()
        };
        assert_eq!(bytes("one.tar"), bytes("two.tar"));
    }
}
