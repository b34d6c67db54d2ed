//! Keys of log: a recipient that was added opens what was written before, and a machine that dies in between loses nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{
    Encryption, Identities, LogFileKind, LogReader, Rekey, Rekeyed, Repository, generate_identity, list_log, rekey_log,
};
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::faulty::{FaultyStore, Plan, is_crash};

use super::{MIB, append, begin, range, wal};
use crate::world::{World, share};

async fn followed() -> World {
    let mut world = World::new(41).await;
    world.env.threads = 1;
    for number in 0..2 {
        // A session each.
        let mut writer = begin(&world, &world.repository).await.unwrap();
        let piece = range(number * 16 * MIB, (number + 1) * 16 * MIB - MIB * 15);
        append(&mut writer, LogFileKind::Piece, piece).await.unwrap();
        let frame = range(piece.end.0, piece.end.0 + 100);
        append(&mut writer, LogFileKind::Frame, frame).await.unwrap();
    }
    world
}

async fn reads(world: &World, identities: &Identities) -> Result<()> {
    let listing = list_log(&world.repository, &world.component, &world.trust).await?;
    let (component, trust) = (&world.component, &world.trust);
    let lineage = listing.lineages[0].lineage;
    let reader = LogReader::of(&world.repository, component, trust, identities.clone(), lineage, &listing);
    assert_eq!(reader.files().len(), 4);
    for name in reader.files() {
        assert!(reader.fetch(name).await?.1 == wal(name.range));
    }
    Ok(())
}

async fn wrap(world: &World, repository: &Repository, recipients: &[&str], how: Rekey) -> Result<Rekeyed> {
    let encryption = Encryption::Age(recipients.iter().map(|text| (*text).to_owned()).collect());
    let identities = world.identities();
    let (component, trust) = (&world.component, &world.trust);
    rekey_log(&world.env, repository, component, trust, &encryption, &identities, how).await
}

#[tokio::test]
async fn a_new_recipient_opens_old_log_and_a_removed_one_does_not() {
    let world = followed().await;
    let (secret, public) = generate_identity();
    let new = Identities::parse(&secret).unwrap();
    assert_eq!(reads(&world, &new).await.unwrap_err().kind(), ErrorKind::WrongKey);
    let own = world.recipient.as_str();
    let done = wrap(&world, &world.repository, &[own, &public], Rekey::Add).await.unwrap();
    assert_eq!((done.sessions, done.wrapped, done.failed.len()), (2, 2, 0));
    for identities in [&new, &world.identities()] {
        reads(&world, identities).await.unwrap();
    }
    let again = wrap(&world, &world.repository, &[own, &public], Rekey::Add).await.unwrap();
    assert_eq!(again.wrapped, 0);
    let done = wrap(&world, &world.repository, &[own], Rekey::Replace).await.unwrap();
    assert_eq!((done.wrapped, done.removed), (2, 4));
    reads(&world, &world.identities()).await.unwrap();
    assert_eq!(reads(&world, &new).await.unwrap_err().kind(), ErrorKind::WrongKey);
    // Nobody who opens it not can wrap it anew: that is told, and nothing is lost.
    let stranger = Encryption::Age(vec![public.clone()]);
    let (component, trust) = (&world.component, &world.trust);
    let done = rekey_log(
        &world.env,
        &world.repository,
        component,
        trust,
        &stranger,
        &new,
        Rekey::Replace,
    );
    assert_eq!(done.await.unwrap().failed.len(), 2);
    reads(&world, &world.identities()).await.unwrap();
}

#[tokio::test]
async fn a_crash_at_every_operation_loses_no_log() {
    let (secret, public) = generate_identity();
    let new = Identities::parse(&secret).unwrap();
    for how in [Rekey::Add, Rekey::Replace] {
        let operations = {
            let world = followed().await;
            let store = Arc::new(FaultyStore::new(world.memory.clone(), Plan::calm()));
            let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store))
                .await
                .unwrap();
            drop(wrap(&world, &repository, &[&world.recipient, &public], how).await.unwrap());
            store.operations()
        };
        let plans = (1..operations).flat_map(|number| [Plan::calm().crash_at(number), Plan::calm().crash_after(number)]);
        for plan in share(plans.collect(), 3) {
            let what = format!("{how:?} {plan:?}");
            let world = followed().await;
            let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
            let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store)).await;
            let outcome = match repository {
                Ok(repository) => wrap(&world, &repository, &[&world.recipient, &public], how).await.map(drop),
                Err(error) => Err(error),
            };
            if store.crashed() {
                assert!(outcome.is_err_and(|error| is_crash(&error)), "{what}");
            }
            reads(&world, &world.identities()).await.unwrap();
            let done = wrap(&world, &world.repository, &[&world.recipient, &public], how)
                .await
                .unwrap();
            assert_eq!(done.failed.len(), 0, "{what}");
            reads(&world, &new).await.unwrap();
            reads(&world, &world.identities()).await.unwrap();
            if how == Rekey::Replace {
                let keys: BTreeSet<_> = world.stored("keys").await.into_iter().collect();
                assert_eq!(keys.len(), 2, "{what}");
            }
        }
    }
}
