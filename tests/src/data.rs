//! Files in the under file system for a load. Contents are made from the name, so that no two blocks are
//! alike and nothing depends on chance.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Names that have broken programs of this kind; Alluxio itself loads every one of them.
pub const ODD_NAMES: [&str; 12] = [
    "with space.bin",
    " leading and trailing ",
    "comma,separated,name.csv",
    "quote'single\"double.txt",
    "üñí漢字.txt",
    "-rf",
    "--replication",
    "$(touch owned);`true`&|<>.sh",
    "hash#percent%20plus+brackets[1]{a,b}*.txt",
    "new\nline.txt",
    "tilde~at@colon:equals=.txt",
    ".hidden",
];

/// A directory of the under file system, and where Alluxio shows it.
#[derive(Debug, Clone)]
pub struct Data {
    ufs: PathBuf,
    path: String,
}

impl Data {
    pub fn create(ufs: PathBuf, path: String) -> Result<Self> {
        fs::create_dir_all(&ufs).with_context(|| format!("make {}", ufs.display()))?;
        Ok(Self { ufs, path })
    }

    pub(crate) fn at(ufs: PathBuf, path: String) -> Self {
        Self { ufs, path }
    }

    /// The Alluxio path, such as `/happy-path-3`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same in the under file system.
    pub fn ufs(&self) -> &Path {
        &self.ufs
    }

    /// A directory below, made if needed.
    pub fn below(&self, name: &str) -> Result<Self> {
        Self::create(self.ufs.join(name), format!("{}/{name}", self.path.trim_end_matches('/')))
    }

    /// Writes one file of `size` bytes, and the directories above it; gives its Alluxio path.
    pub fn file(&self, name: &str, size: u64) -> Result<String> {
        let target = self.ufs.join(name);
        let write = || -> std::io::Result<()> {
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = BufWriter::with_capacity(1 << 16, File::create(&target)?);
            fill(&mut file, &target, size)?;
            file.flush()
        };
        write().with_context(|| format!("write {}", target.display()))?;
        Ok(format!("{}/{name}", self.path.trim_end_matches('/')))
    }

    /// `count` files `f00000`, `f00001` ... of `size` bytes each.
    pub fn files(&self, count: usize, size: u64) -> Result<()> {
        (0..count).try_for_each(|number| self.file(&format!("f{number:05}"), size).map(drop))
    }

    /// Three levels of directories, 27 files of `size` bytes at the bottom, one in each directory above, an
    /// empty file and an empty directory: 40 files with data, and one without.
    pub fn tree(&self, size: u64) -> Result<()> {
        self.file("top.bin", size)?;
        self.file("empty.bin", 0)?;
        for a in 0..3 {
            self.file(&format!("a{a}/middle.bin"), size)?;
            for b in 0..3 {
                self.file(&format!("a{a}/b{b}/low.bin"), size)?;
                for c in 0..3 {
                    self.file(&format!("a{a}/b{b}/c{c}/leaf.bin"), size)?;
                }
            }
        }
        self.below("nothing").map(drop)
    }

    /// One file for each of [`ODD_NAMES`], and one below a directory of that name; gives all Alluxio paths.
    pub fn odd_names(&self, size: u64) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for name in ODD_NAMES {
            paths.push(self.file(name, size)?);
            paths.push(self.file(&format!("below/{name}/{name}"), size)?);
        }
        Ok(paths)
    }
}

/// Writes `size` bytes of xorshift noise, seeded by the path.
fn fill(file: &mut impl Write, path: &Path, size: u64) -> std::io::Result<()> {
    // FNV-1a, and never 0, where xorshift would stay.
    let seed = path.as_os_str().as_encoded_bytes().iter();
    let seed = seed.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut state = seed | 1;
    let mut left = size;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let take = left.min(word.len() as u64);
        file.write_all(&word[..usize::try_from(take).unwrap_or(word.len())])?;
        left -= take;
    }
    Ok(())
}
