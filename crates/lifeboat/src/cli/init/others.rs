//! What `init` protects besides databases: files and a PKI, as the flags name them. Writes nothing.

use std::ffi::OsStr;
use std::path::Path;

use lifeboat_engine::files::check_pattern;
use lifeboat_model::{Error, ErrorKind, Result};

use super::super::args::Init;
use super::proposal::absolute;
use crate::config::InitialSource;

/// The components that the flags ask for: their names in the system, and what they are.
pub(super) fn given(args: &Init) -> Result<Vec<(&'static str, InitialSource)>> {
    let mut found = Vec::new();
    if !args.files.is_empty() || !args.env_structure.is_empty() {
        let include = args.files.iter().map(|pattern| {
            check_pattern(pattern).map_err(|error| error.with_kind(ErrorKind::Usage))?;
            text(&absolute(Path::new(pattern))?)
        });
        let include: Vec<String> = include.collect::<Result<_>>()?;
        let env_structure = args
            .env_structure
            .iter()
            .map(|path| file(path.as_path()))
            .collect::<Result<_>>()?;
        found.push(("config", InitialSource::Files { include, env_structure }));
    }
    if let Some(folder) = &args.pki {
        found.push(("pki", pki(folder)?));
    }
    Ok(found)
}

/// A configuration is text: a path that is none cannot stand in it.
fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::new(ErrorKind::Usage, "protect", path.display(), "its name is not UTF-8"))
}

fn file(path: &Path) -> Result<String> {
    match path.metadata() {
        Ok(meta) if meta.is_file() => text(&absolute(path)?),
        Ok(_) => Err(Error::new(ErrorKind::Usage, "protect", path.display(), "it is not a file")),
        Err(error) => Err(Error::io("protect", path.display(), error)
            .with_kind(ErrorKind::Unreachable)
            .with_hint("check the path given with --env-structure")),
    }
}

/// The patterns of what a folder holds; every one of them fits something.
fn pki(folder: &Path) -> Result<InitialSource> {
    let listed = std::fs::read_dir(folder).map_err(|error| {
        Error::io("list", folder.display(), error)
            .with_kind(ErrorKind::Unreachable)
            .with_hint("check the folder given with --pki")
    })?;
    let mut endings = Vec::new();
    for entry in listed {
        let path = entry.map_err(|error| Error::io("list", folder.display(), error))?.path();
        endings.extend(path.extension().map(OsStr::to_owned));
    }
    let folder = text(&absolute(folder)?)?;
    let patterns = |wanted: &[&str]| -> Vec<String> {
        wanted
            .iter()
            .filter(|ending| endings.iter().any(|there| there == **ending))
            .map(|ending| format!("{folder}/*.{ending}"))
            .collect()
    };
    let (keys, certs) = (patterns(&["key"]), patterns(&["crt", "pem", "cer"]));
    if keys.is_empty() || certs.is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            "protect the PKI in",
            &folder,
            "private keys (*.key) and certificates (*.crt, *.pem, *.cer) are not both there",
        )
        .with_hint("write the component by hand: `pki: { ca_keys: […], certs: […] }` in lifeboat.yaml"));
    }
    Ok(InitialSource::Pki {
        keys,
        certs,
        crl: patterns(&["crl"]),
    })
}
