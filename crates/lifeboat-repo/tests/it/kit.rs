//! Kits: what comes out is what went in, signed by who it says, and nothing that was touched is taken.

use lifeboat_model::ErrorKind;
use lifeboat_repo::{
    Content, Encryption, Identities, KitComponent, KitConfiguration, KitName, NewKit, RepositoryId, Trust, generate_identity,
    get_kit, kit_digest, kit_signer, list_kits, open_kit, put_kit, seal_kit,
};
use lifeboat_store::{Key, Put};

use crate::world::{World, seed};

const AT_US: i64 = 1_790_000_000_000_000;

fn new(encryption: Encryption) -> NewKit {
    let configuration = KitConfiguration {
        path: "/etc/lifeboat/lifeboat.yaml".to_owned(),
        text: "version: 1 # of the machine that is gone".to_owned(),
        recipients: [("main".to_owned(), vec!["age1".to_owned()])].into(),
    };
    NewKit {
        lifeboat: "0.1.0".to_owned(),
        store: "disk".to_owned(),
        components: vec![KitComponent {
            name: "shop/db".to_owned(),
            kind: "sqlite".to_owned(),
            priority: "normal".to_owned(),
            depends_on: Vec::new(),
        }],
        how: vec!["lifeboat bootstrap".to_owned()],
        content: Content::Kept(configuration, encryption),
    }
}

/// INV-19: of a kit that was touched, or that somebody else signed, nothing is given out.
#[tokio::test]
async fn what_is_read_is_what_was_signed() {
    let world = World::new(seed()).await;
    let id = world.repository.id();
    let (secret, public) = generate_identity();
    let identities = Identities::parse(&secret).unwrap();
    let kit = new(Encryption::Age(vec![public]));
    let (name, stored) = seal_kit(id, &world.instance, AT_US, &kit).unwrap();
    assert!(!stored.windows(12).any(|window| window == b"that is gone"));
    put_kit(world.repository.store().as_ref(), &name, stored.clone())
        .await
        .unwrap();
    assert_eq!(list_kits(&world.repository).await.unwrap().names, [name]);
    assert_eq!(get_kit(&world.repository, &name).await.unwrap(), stored);
    assert_eq!(kit_signer(&name, &stored).unwrap(), world.instance.public_key());
    let opened = open_kit(id, &world.trust, &name, &stored).unwrap();
    assert_eq!((opened.at_us, opened.components), (AT_US, kit.components.clone()));
    let opened = open_kit(id, &world.trust, &name, &stored).unwrap();
    let Content::Kept(configuration, _) = &kit.content else {
        panic!()
    };
    assert_eq!(opened.configuration(&identities).unwrap(), *configuration);
    let (other, _) = generate_identity();
    let other = Identities::parse(&other).unwrap();
    assert_eq!(opened.configuration(&other).unwrap_err().kind(), ErrorKind::WrongKey);
    for at in 0..stored.len() {
        let mut touched = stored.to_vec();
        touched[at] ^= 1;
        let named = KitName {
            hash: *blake3::hash(&touched).as_bytes(),
            ..name
        };
        for name in [name, named] {
            assert_eq!(
                open_kit(id, &world.trust, &name, &touched).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        assert_eq!(
            open_kit(id, &world.trust, &name, &stored[..at]).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    assert!(open_kit(id, &Trust::new(), &name, &stored).is_err());
    let elsewhere: RepositoryId = "0".repeat(32).parse().unwrap();
    assert!(open_kit(elsewhere, &world.trust, &name, &stored).is_err());
    let later = KitName {
        at_us: name.at_us + 1,
        ..name
    };
    assert!(open_kit(id, &world.trust, &later, &stored).is_err());
}

#[tokio::test]
async fn the_same_words_have_the_same_digest_and_other_files_no_name() {
    let world = World::new(seed()).await;
    let id = world.repository.id();
    let clear = new(Encryption::Clear);
    let digest = |kit: &NewKit| kit_digest(id, &world.instance, kit).unwrap();
    assert_eq!(digest(&clear), digest(&clear.clone()));
    let (_, public) = generate_identity();
    assert_ne!(digest(&clear), digest(&new(Encryption::Age(vec![public]))));
    let left_out = NewKit {
        content: Content::LeftOut("a secret stands in it".to_owned()),
        ..clear.clone()
    };
    assert_ne!(digest(&clear), digest(&left_out));
    let (name, stored) = seal_kit(id, &world.instance, AT_US, &left_out).unwrap();
    let opened = open_kit(id, &world.trust, &name, &stored).unwrap();
    assert_eq!(
        opened.configuration(&Identities::none()).unwrap_err().kind(),
        ErrorKind::NoSuchPoint
    );
    let text = name.to_string();
    assert_eq!(text.parse::<KitName>().unwrap(), name);
    for wrong in [
        text.to_uppercase(),
        format!("0{text}"),
        text[..text.len() - 1].to_owned(),
        "x".to_owned(),
    ] {
        assert!(wrong.parse::<KitName>().is_err(), "{wrong}");
    }
    let store = world.repository.store();
    let put = store.put(&Key::new("kit/README").unwrap(), stored).await.unwrap();
    assert!(matches!(put, Put::Created));
    assert_eq!(list_kits(&world.repository).await.unwrap().unknown, ["kit/README"]);
}
