//! Who may speak to whom between controller and sidecars, without anybody having to configure it.
//!
//! One root, an authority and a key, lies in a Secret of the controller's own namespace. From it comes all else:
//! the certificate and the tokens of each master StatefulSet, which are written into a Secret that its pods
//! mount, and the certificate of the webhook. So the controller never reads a Secret of somebody else: it knows
//! what it has written, and cannot be made to tell what others keep there.
//!
//! Invariants: a token opens the sidecars of one StatefulSet alone, and a certificate names one; what is written
//! in one period is still accepted, and what is shown in it was written before, so that no clock and no kubelet
//! has to be on time.

mod admission;
mod identity;
mod keeper;
mod root;
mod rotation;
mod secret;

pub use admission::Admission;
pub use identity::{INJECTED, Identity, Owner, injected_by};
pub use keeper::{Keeper, KeeperConfig, KeeperError};
pub use root::{Issued, Root, RootError};
pub use rotation::rotate;
