//! The files `~/.aws/credentials` and `~/.aws/config`, as far as stores need them: keys and region of one profile.
//!
//! Roles, SSO and helper programs of a profile are not followed; a profile that needs them says so.
//! Format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

use super::settings::{S3Credentials, Secret};

/// The largest file that is read, in bytes.
const LIMIT_BYTES: u64 = 1 << 20;

/// What surrounds a process: its variables.
pub(super) type Variables<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

/// What a profile gives.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) credentials: Option<S3Credentials>,
    pub(super) region: Option<String>,
    /// Why a profile that is there has no keys of its own.
    pub(super) needs: Option<&'static str>,
    found: bool,
}

/// Reads the profile `wanted`, or `$AWS_PROFILE`, or `default`. One that was named and is not there is an error.
pub(super) fn load(wanted: Option<&str>, variables: Variables<'_>) -> Result<Profile> {
    let named = wanted.map(str::to_owned).or_else(|| variables("AWS_PROFILE"));
    let name = named.clone().unwrap_or_else(|| "default".to_owned());
    let home = variables("HOME").map(PathBuf::from);
    let place = |variable: &str, file: &str| {
        let own = variables(variable).map(PathBuf::from);
        own.or_else(|| home.as_ref().map(|home| home.join(".aws").join(file)))
    };
    let mut profile = Profile::default();
    for path in [
        place("AWS_CONFIG_FILE", "config"),
        place("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    ] {
        if let Some(text) = path.as_deref().map(read).transpose()?.flatten() {
            merge(&mut profile, &text, &name);
        }
    }
    if let (Some(name), false) = (&named, profile.found) {
        let detail = "neither ~/.aws/credentials nor ~/.aws/config has a profile of that name";
        return Err(Error::new(ErrorKind::ConfigInvalid, "use the AWS profile", name, detail)
            .with_hint("correct `profile` or AWS_PROFILE; then run `lifeboat doctor`"));
    }
    if let (Some(needs), None, Some(_)) = (profile.needs, &profile.credentials, wanted) {
        let detail = format!("it has no keys of its own but {needs}, which is not followed");
        return Err(Error::new(ErrorKind::ConfigInvalid, "use the AWS profile", &name, detail)
            .with_hint("run `aws configure export-credentials --format env` and use the variables it prints, or write `access_key` and `secret_key`"));
    }
    Ok(profile)
}

/// A file that is not there is no error; one that cannot be read is.
fn read(path: &Path) -> Result<Option<String>> {
    use std::io::Read as _;
    let fail = |error| Error::io("read", path.display(), error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = String::new();
    file.take(LIMIT_BYTES).read_to_string(&mut text).map_err(fail)?;
    Ok(Some(text))
}

fn merge(profile: &mut Profile, text: &str, name: &str) {
    let Some(mut values) = section(text, name) else { return };
    profile.found = true;
    if let Some(region) = values.remove("region") {
        profile.region = Some(region);
    }
    if let (Some(access_key), Some(secret)) = (values.remove("aws_access_key_id"), values.remove("aws_secret_access_key")) {
        profile.credentials = Some(S3Credentials {
            access_key,
            secret_key: Secret::new(secret),
            session_token: values.remove("aws_session_token").map(Secret::new),
        });
    }
    for (key, needs) in [
        ("role_arn", "a role to assume"),
        ("sso_session", "a login by SSO"),
        ("sso_start_url", "a login by SSO"),
        ("credential_process", "a program that gives credentials"),
    ] {
        if values.contains_key(key) {
            profile.needs = Some(needs);
        }
    }
}

/// The values of `[name]` or `[profile name]`; nested blocks (indented lines) are passed over.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut values = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let title = title.trim();
            inside = title == name
                || title
                    .strip_prefix("profile")
                    .is_some_and(|rest| rest.starts_with([' ', '\t']) && rest.trim() == name);
            if inside {
                values.get_or_insert_with(BTreeMap::new);
            }
        } else if inside
            && !line.starts_with([' ', '\t'])
            && let (Some(values), Some((key, value))) = (&mut values, trimmed.split_once('='))
        {
            // A comment after a value begins with a blank; a secret key may hold `#` or `;` itself.
            let value = value.split(" #").next().unwrap_or(value).trim();
            if !value.is_empty() {
                values.insert(key.trim().to_lowercase(), value.to_owned());
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(credentials: &str, config: &str, wanted: Option<&str>, variable: Option<&str>) -> Result<Profile> {
        let folder = tempfile::tempdir().unwrap();
        let aws = folder.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        for (name, text) in [("credentials", credentials), ("config", config)] {
            let mut file = std::fs::File::create(aws.join(name)).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        let home = folder.path().display().to_string();
        let variable = variable.map(str::to_owned);
        load(wanted, &move |name: &str| match name {
            "HOME" => Some(home.clone()),
            "AWS_PROFILE" => variable.clone(),
            _ => None,
        })
    }

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=a#b/+= # mine\n\n[backup]\nAWS_ACCESS_KEY_ID=AKIA2\n\
        aws_secret_access_key = s2\naws_session_token = t2\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  region = nested\n[profile backup]\nregion=us-west-2\n[profile sso]\nsso_session = x\n";

    #[test]
    fn keys_and_region_of_a_profile_are_found() {
        let default = profile(CREDENTIALS, CONFIG, None, None).unwrap();
        let keys = default.credentials.unwrap();
        assert_eq!((keys.access_key.as_str(), keys.secret_key.expose()), ("AKIA1", "a#b/+="));
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        for (wanted, variable) in [
            (Some("backup"), None),
            (None, Some("backup")),
            (Some("backup"), Some("default")),
        ] {
            let backup = profile(CREDENTIALS, CONFIG, wanted, variable).unwrap();
            let keys = backup.credentials.unwrap();
            assert_eq!((keys.access_key.as_str(), keys.secret_key.expose()), ("AKIA2", "s2"));
            assert_eq!(keys.session_token.unwrap().expose(), "t2");
            assert_eq!(backup.region.as_deref(), Some("us-west-2"));
        }
    }

    #[test]
    fn a_profile_that_was_named_must_be_there_and_have_keys() {
        let missing = profile(CREDENTIALS, CONFIG, Some("other"), None).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::ConfigInvalid);
        let sso = profile(CREDENTIALS, CONFIG, Some("sso"), None).unwrap_err();
        assert!(sso.detail().contains("SSO"), "{sso}");
        assert!(profile("", "", None, None).unwrap().credentials.is_none());
    }
}
