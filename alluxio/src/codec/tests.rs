use super::*;
use crate::{
    File,
    wire::{BlockInfo, BlockLocation, file::FileBlockInfo},
};
use proptest::{collection::vec, option, prelude::*};
use prost::encoding::{encode_key, encode_varint};

/// `ListStatusPResponse`, as the server would encode it.
fn message(files: &[FileInfo]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in files {
        encode_key(FILE_INFOS, WireType::LengthDelimited, &mut bytes);
        file.encode_length_delimited(&mut bytes).unwrap();
    }
    bytes
}

/// Takes everything out of a message; the number of steps is bounded by its length.
fn drain(bytes: Vec<u8>) -> Result<Vec<FileInfo>, Error> {
    let mut batch = Batch::new(bytes.into());
    std::iter::from_fn(|| batch.next().transpose()).collect()
}

fn block() -> impl Strategy<Value = FileBlockInfo> {
    let location = option::of(any::<i64>()).prop_map(|worker_id| BlockLocation { worker_id });
    let info = (option::of(any::<i64>()), option::of(any::<i64>()), vec(location, 0..4))
        .prop_map(|(block_id, length, locations)| BlockInfo { block_id, length, locations });
    option::of(info).prop_map(|block_info| FileBlockInfo { block_info })
}

fn file() -> impl Strategy<Value = FileInfo> {
    let names = (option::of(".*"), option::of(".*"));
    let numbers = (option::of(any::<i64>()), option::of(any::<i64>()), option::of(any::<i32>()));
    let flags = (option::of(any::<bool>()), option::of(any::<bool>()));
    (names, numbers, flags, vec(block(), 0..4)).prop_map(|(names, numbers, flags, blocks)| FileInfo {
        path: names.0,
        ufs_path: names.1,
        length: numbers.0,
        block_size_bytes: numbers.1,
        replication_max: numbers.2,
        folder: flags.0,
        completed: flags.1,
        file_block_infos: blocks,
        ..Default::default()
    })
}

proptest! {
    #[test]
    fn files_come_out_as_they_went_in(files in vec(file(), 0..8)) {
        prop_assert_eq!(drain(message(&files)).unwrap(), files);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..512)) {
        for file in drain(bytes).unwrap_or_default() {
            let _ = File::try_from(file);
        }
    }

    #[test]
    fn no_damage_to_an_answer_panics(
        files in vec(file(), 1..4),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message(&files);
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(keep.index(bytes.len() + 1));
        for file in drain(bytes).unwrap_or_default() {
            let _ = File::try_from(file);
        }
    }

    #[test]
    fn a_conversion_keeps_lengths_or_refuses_them(info in file()) {
        let blocks = info.file_block_infos.len();
        let length = info.length.filter(|_| info.folder != Some(true));
        if let Ok(file) = File::try_from(info) {
            prop_assert_eq!(i64::try_from(file.length).unwrap(), length.unwrap_or_default());
            prop_assert_eq!(file.blocks.len(), blocks);
            prop_assert!(file.blocks.iter().all(|block| block.workers.is_sorted_by(|a, b| a < b)));
        }
    }
}

#[test]
fn a_message_cut_anywhere_between_files_is_an_error_or_shorter() {
    let file = FileInfo { path: Some("/a".to_owned()), length: Some(1), ..Default::default() };
    let whole = message(&[file.clone(), file]);
    for end in 1..whole.len() {
        match drain(whole[..end].to_vec()) {
            Ok(files) => assert_eq!((files.len(), end), (1, whole.len() / 2)),
            Err(error) => assert!(matches!(error, Error::Protocol { .. })),
        }
    }
}

#[test]
fn other_fields_are_skipped() {
    let mut bytes = Vec::new();
    encode_key(7, WireType::Varint, &mut bytes);
    encode_varint(u64::MAX, &mut bytes);
    let file = FileInfo { path: Some("/a".to_owned()), ..Default::default() };
    bytes.extend(message(std::slice::from_ref(&file)));
    assert_eq!(drain(bytes).unwrap(), [file]);
}

#[test]
fn a_length_beyond_memory_is_a_protocol_error() {
    for length in [1, u64::from(u32::MAX), u64::MAX] {
        let mut bytes = Vec::new();
        encode_key(FILE_INFOS, WireType::LengthDelimited, &mut bytes);
        encode_varint(length, &mut bytes);
        assert!(matches!(drain(bytes), Err(Error::Protocol { .. })), "{length}");
    }
}

#[test]
fn a_path_that_is_not_utf8_is_a_protocol_error_and_ends_the_message() {
    // FileInfo.path = "\xff"
    let bad = [FILE_INFOS as u8 * 8 + 2, 3, 3 * 8 + 2, 1, 0xff];
    let mut batch = Batch::new([bad, bad].concat().into());
    assert!(matches!(batch.next(), Err(Error::Protocol { .. })));
    assert!(batch.next().unwrap().is_none());
}
