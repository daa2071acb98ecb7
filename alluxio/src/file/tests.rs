use super::*;
use crate::wire::BlockLocation;

fn info() -> wire::FileInfo {
    let location = |id| BlockLocation { worker_id: Some(id) };
    let block = BlockInfo {
        block_id: Some(5),
        length: Some(3),
        locations: vec![location(9), location(2), location(9), BlockLocation { worker_id: None }],
    };
    wire::FileInfo {
        path: Some("/a".to_owned()),
        length: Some(3),
        file_block_infos: vec![wire::FileBlockInfo { block_info: Some(block) }],
        ..Default::default()
    }
}

fn refused(info: wire::FileInfo) -> String {
    match File::try_from(info) {
        Err(Error::Protocol { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn loading_metadata_never_lets_files_expire() {
    for metadata in [LoadMetadata::Never, LoadMetadata::Once, LoadMetadata::Always] {
        let options = wire::FileSystemMasterCommonPOptions::from(metadata);
        assert_eq!((options.ttl, options.ttl_action()), (Some(-1), wire::TtlAction::Free), "{metadata:?}");
    }
}

#[test]
fn a_worker_with_two_copies_of_a_block_counts_once() {
    let file = File::try_from(info()).unwrap();
    assert_eq!(file.blocks, [Block { id: 5, length: 3, workers: vec![2, 9] }]);
}

#[test]
fn what_is_not_told_is_assumed_cautiously() {
    let file = File::try_from(info()).unwrap();
    assert!(!file.completed && !file.persisted && !file.folder);
    assert_eq!((file.replication_min, file.replication_max), (0, -1));
}

#[test]
fn a_negative_length_is_refused_with_its_path() {
    assert_eq!(refused(wire::FileInfo { length: Some(-1), ..info() }), "length -1 of /a");
    assert_eq!(
        refused(wire::FileInfo { block_size_bytes: Some(i64::MIN), ..info() }),
        "block size -9223372036854775808 of /a"
    );
}

#[test]
fn a_file_without_length_or_path_is_refused() {
    assert_eq!(refused(wire::FileInfo { length: None, ..info() }), "/a came without length");
    assert_eq!(refused(wire::FileInfo { path: None, ..info() }), "a file came without a path");
}

#[test]
fn the_entries_of_a_folder_are_no_bytes() {
    let folder = wire::FileInfo { folder: Some(true), file_block_infos: vec![], ..info() };
    assert_eq!(File::try_from(folder).unwrap().length, 0);
}

#[test]
fn a_block_without_id_or_length_is_refused() {
    for block in [None, Some(BlockInfo { block_id: Some(1), ..Default::default() })] {
        let blocks = vec![wire::FileBlockInfo { block_info: block }];
        let message = refused(wire::FileInfo { file_block_infos: blocks, ..info() });
        assert!(message.starts_with("/a came without"), "{message}");
    }
}
