//! Decoders of outside bytes on nonsense: an error, never a panic, never room for more than the format allows.

use lifeboat_model::{Error, ErrorKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zeroize::Zeroizing;

use super::world::soak;
use crate::closure::Closure;
use crate::header;
use crate::key::Scope;
use crate::key::age::SessionKeys;
use crate::key::identity::Identities;
use crate::key::instance::Trust;
use crate::manifest::{Manifest, decode_table};
use crate::map::{Row, Slot};
use crate::pack::{Class, Form, Opener, PackClass, Placement, aead_key, read_pack_header};
use crate::signed::{self, Kind};
use crate::{BackupId, ComponentName, Pack, RepositoryId, SessionId, SessionKey, parse_utc};

fn runner() -> TestRunner {
    TestRunner::new(Config {
        cases: if soak() { 200_000 } else { 1500 },
        failure_persistence: None,
        ..Config::default()
    })
}

/// Nonsense, some of it with the beginning that a decoder wants to see.
fn outside() -> impl Strategy<Value = Vec<u8>> {
    let magic = prop_oneof![
        Just(b"".to_vec()),
        Just(b"LBBACK01".to_vec()),
        Just(b"LBPACK01".to_vec()),
        Just(b"{\"version\":1,".to_vec()),
        Just(b"age-encryption.org/v1\n-> X25519 ".to_vec()),
        Just(vec![1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    (magic, vec(any::<u8>(), 0..6000)).prop_map(|(mut bytes, tail)| {
        bytes.extend(tail);
        bytes
    })
}

fn judged<T>(result: Result<T, Error>) {
    if let Err(error) = result {
        let known = [ErrorKind::Corrupt, ErrorKind::Incompatible, ErrorKind::WrongKey];
        assert!(known.contains(&error.kind()), "{:?}: {error}", error.kind());
    }
}

#[test]
fn decoders_survive_nonsense() {
    let repository = RepositoryId([1; 16]);
    let component = ComponentName::new("a/b").unwrap();
    let scope = Scope::new(repository, &component);
    let (identity, _) = crate::generate_identity();
    let identities = Identities::parse(&identity).unwrap();
    let secret = Zeroizing::new([3; 32]);
    let key = aead_key(&secret).unwrap();
    runner()
        .run(&outside(), |bytes| {
            judged(header::decode(&bytes));
            judged(Closure::decode(&bytes));
            judged(Row::decode(&bytes));
            judged(Slot::decode(&bytes));
            judged(decode_table(&bytes));
            judged(Manifest::open(&bytes, &secret, &scope, &bytes));
            judged(signed::open(Kind::Backup, "name", &bytes, &Trust::new()));
            judged(read_pack_header(&bytes, PackClass::Data.magic(), &[0; 16], "pack"));
            for clear in [false, true] {
                judged(SessionKeys::unwrap(
                    &bytes,
                    clear,
                    &identities,
                    repository,
                    &component,
                    SessionId([2; 16]),
                ));
            }
            let text = String::from_utf8_lossy(&bytes);
            judged(text.parse::<BackupId>());
            judged(parse_utc(&text));
            let _name = ComponentName::from_segment(&text);
            let place = Placement {
                pack: 1,
                offset: 64,
                stored_bytes: 5,
                form: Form::Zstd,
            };
            judged(
                Opener::new()
                    .unwrap()
                    .open(&key, &mut bytes.clone(), &place, Class::Chunk, u32::MAX, &[0; 16])
                    .map(|_raw| ()),
            );
            Ok(())
        })
        .unwrap();
}

fn closure() -> impl Strategy<Value = Closure> {
    let keys = vec((any::<[u8; 16]>(), any::<[u8; 32]>(), any::<bool>()), 1..5);
    let packs = vec(
        (1_u32..1000, any::<u32>(), any::<u32>(), any::<bool>(), any::<[u8; 32]>()),
        0..20,
    );
    (keys, packs).prop_map(|(keys, packs)| {
        let sessions: Vec<SessionKey> = keys
            .into_iter()
            .map(|(session, check, clear)| SessionKey {
                session: SessionId(session),
                check,
                clear,
            })
            .collect();
        let mut number = 0;
        let packs = packs.into_iter().map(|(step, key, size_bytes, map, hash)| {
            number += step;
            Pack {
                number,
                session: key % u32::try_from(sessions.len()).unwrap(),
                size_bytes,
                class: if map { PackClass::Map } else { PackClass::Data },
                hash,
            }
        });
        let packs = packs.collect();
        Closure { sessions, packs }
    })
}

/// What was encoded is decoded to the same, and with any byte changed or cut it is something else or an error, never a panic.
#[test]
fn closures_rows_and_slots_come_back() {
    runner()
        .run(&(closure(), any::<usize>(), any::<u8>()), |(closure, place, byte)| {
            let bytes = closure.encode().unwrap();
            prop_assert_eq!(&Closure::decode(&bytes).unwrap(), &closure);
            let place = place % bytes.len();
            prop_assert!(Closure::decode(&bytes[..place]).is_err());
            let mut changed = bytes;
            changed[place] = byte;
            judged(Closure::decode(&changed));
            Ok(())
        })
        .unwrap();
    let row = (
        any::<u32>(),
        any::<u32>(),
        0..1_u32 << 24,
        any::<bool>(),
        any::<u32>(),
        any::<[u8; 16]>(),
    );
    runner()
        .run(&row, |(pack, offset, stored_bytes, zstd, extra, id)| {
            let form = if zstd { Form::Zstd } else { Form::Raw };
            let place = Placement {
                pack,
                offset,
                stored_bytes,
                form,
            };
            for row in [Row::Blob { place, extra, id }, Row::Zero { id }, Row::Unused] {
                prop_assert_eq!(Row::decode(&row.encode()).unwrap(), row);
            }
            let mut group = id;
            group[8..].fill(0);
            let slot = Slot {
                next: extra,
                place,
                raw_bytes: offset,
                first: 9,
                group,
                pages: u128::from_le_bytes(id),
                base: id,
            };
            prop_assert_eq!(Slot::decode(&slot.encode()).unwrap(), Some(slot));
            Ok(())
        })
        .unwrap();
    assert_eq!(Slot::decode(&[0; 64]).unwrap(), None);
}

#[test]
fn names_of_components_come_back_and_have_one_spelling() {
    runner()
        .run(&"[a-zA-Z0-9_.-]{1,10}/[a-zA-Z0-9_.-]{1,10}", |text| {
            if let Ok(name) = ComponentName::new(text) {
                let segment = name.segment();
                prop_assert_eq!(ComponentName::from_segment(&segment), Some(name));
                prop_assert_eq!(ComponentName::from_segment(&segment.replace("~2F", "~2f")), None);
                prop_assert!(
                    segment
                        .bytes()
                        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'A'..=b'F'))
                );
            }
            Ok(())
        })
        .unwrap();
    for bad in ["", "a", "a/b/c", "../b", "a/.b", "-a/b", "a b/c", "ä/b", "a/"] {
        assert!(ComponentName::new(bad).is_err(), "{bad:?}");
    }
}
