//! Where the configuration is looked for.

use std::path::{Path, PathBuf};

use lifeboat_model::ErrorKind;

use super::super::surroundings::Surroundings;

struct Places {
    _folder: tempfile::TempDir,
    surroundings: Surroundings,
    all: [PathBuf; 3],
}

fn places() -> Places {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let surroundings = Surroundings {
        folder: at("here"),
        config_variable: None,
        config_home: Some(at("home")),
        state_home: None,
        etc: at("etc"),
        root: false,
    };
    let all = [
        at("here/lifeboat.yaml"),
        at("home/lifeboat/lifeboat.yaml"),
        at("etc/lifeboat/lifeboat.yaml"),
    ];
    Places {
        _folder: folder,
        surroundings,
        all,
    }
}

fn write(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap();
}

#[test]
fn the_nearest_wins() {
    let places = places();
    for place in places.all.iter().rev() {
        write(place);
        assert_eq!(places.surroundings.find(None).unwrap(), *place);
    }
}

#[test]
fn a_named_file_is_never_passed_over() {
    let mut places = places();
    for place in &places.all {
        write(place);
    }
    let absent = places.surroundings.folder.join("absent.yaml");
    places.surroundings.config_variable = Some(absent.clone());
    let error = places.surroundings.find(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("$LIFEBOAT_CONFIG names it"), "{error}");
    // The command line wins over the environment.
    assert_eq!(places.surroundings.find(Some(&places.all[2])).unwrap(), places.all[2]);
    assert!(
        places
            .surroundings
            .find(Some(&absent))
            .unwrap_err()
            .to_string()
            .contains("--config names it")
    );
}

#[test]
fn nothing_anywhere_leads_to_init() {
    let places = places();
    let error = places.surroundings.find(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    assert!(error.hint().unwrap().contains("`lifeboat init`"));
    for place in &places.all {
        assert!(error.detail().contains(place.to_str().unwrap()), "{error}");
    }
}

#[test]
fn root_keeps_its_state_in_var() {
    let mut surroundings = places().surroundings;
    assert_eq!(surroundings.state_dir(), None);
    surroundings.root = true;
    assert_eq!(surroundings.state_dir(), Some(PathBuf::from("/var/lib/lifeboat")));
}
