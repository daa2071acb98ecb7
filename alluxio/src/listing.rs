//! A recursive listing, one file at a time.

use crate::{Error, File};

/// Files and folders under a path, as the master sends them.
#[derive(Debug)]
pub struct Listing {}

impl Listing {
    /// The next file or folder, or `None` after the last. After an error the listing is over.
    pub async fn next(&mut self) -> Result<Option<File>, Error> {
        Ok(None)
    }
}
