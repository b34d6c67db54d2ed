//! What setting up a bucket would do, as commands of the `aws` program and as policies for the two credentials.
//!
//! For people who may not, or would not, let Lifeboat do it. Sends nothing.

use lifeboat_store::s3admin::{Bucket, Lock, LockMode};
use serde_json::{Value, json};

use super::{Wanted, tidy_rule};

/// Commands and policies.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Shell commands, in order.
    pub commands: Vec<String>,
    /// For the credentials that every backup uses: put, read and list. They cannot delete, shorten a lock or change a rule.
    pub writer: Value,
    /// For the credentials of `prune`, `extend-lock` and `store setup`.
    pub maintenance: Value,
}

/// Everything that `set_up` would do on an empty account.
#[must_use]
pub fn plan(bucket: &Bucket, wanted: &Wanted) -> Plan {
    Plan {
        commands: commands(bucket, wanted),
        writer: writer(bucket),
        maintenance: maintenance(bucket, wanted),
    }
}

fn commands(bucket: &Bucket, wanted: &Wanted) -> Vec<String> {
    let place = bucket.place();
    let service = place
        .endpoint
        .as_ref()
        .map(|endpoint| format!(" --endpoint-url {}", quoted(endpoint)))
        .unwrap_or_default();
    let name = quoted(&place.bucket);
    let command = |verb: &str, rest: &str| {
        format!(
            "aws s3api {verb} --bucket {name} --region {}{service}{rest}",
            quoted(&place.region)
        )
    };
    let with = |verb: &str, option: &str, value: &Value| command(verb, &format!(" --{option} {}", quoted(&value.to_string())));
    let mut create = String::new();
    if place.region != "us-east-1" {
        create.push_str(&format!(
            " --create-bucket-configuration LocationConstraint={}",
            quoted(&place.region)
        ));
    }
    if wanted.lock.is_some() {
        create.push_str(" --object-lock-enabled-for-bucket");
    }
    let mut commands = vec![
        command("create-bucket", &create),
        command(
            "put-public-access-block",
            " --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true",
        ),
        command("put-bucket-versioning", " --versioning-configuration Status=Enabled"),
        with(
            "put-bucket-encryption",
            "server-side-encryption-configuration",
            &json!({ "Rules": [{ "ApplyServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } }] }),
        ),
    ];
    if let Some(lock) = wanted.lock {
        commands.push(with(
            "put-object-lock-configuration",
            "object-lock-configuration",
            &lock_json(lock),
        ));
    }
    let rule = tidy_rule(bucket, wanted);
    // This command replaces all rules; `lifeboat store setup` keeps those of others.
    commands.push(with(
        "put-bucket-lifecycle-configuration",
        "lifecycle-configuration",
        &json!({ "Rules": [{
            "ID": rule.id,
            "Status": "Enabled",
            "Filter": { "Prefix": rule.prefix },
            "Expiration": { "ExpiredObjectDeleteMarker": true },
            "NoncurrentVersionExpiration": { "NoncurrentDays": rule.old_versions_days },
            "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": rule.ends_uploads_days },
        }] }),
    ));
    commands
}

fn lock_json(lock: Lock) -> Value {
    json!({
        "ObjectLockEnabled": "Enabled",
        "Rule": { "DefaultRetention": { "Mode": lock.mode.as_str(), "Days": lock.days } },
    })
}

/// Settings that both may read, so that `store check` and `doctor` can answer.
const LOOK: [&str; 7] = [
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetEncryptionConfiguration",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetLifecycleConfiguration",
    "s3:ListBucket",
];

fn resources(bucket: &Bucket) -> (String, String) {
    let name = &bucket.place().bucket;
    (
        format!("arn:aws:s3:::{name}"),
        format!("arn:aws:s3:::{name}/{}*", bucket.prefix()),
    )
}

fn writer(bucket: &Bucket) -> Value {
    let (whole, files) = resources(bucket);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "Look", "Effect": "Allow", "Action": LOOK, "Resource": whole },
            {
                "Sid": "WriteAndRead", "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:GetObject", "s3:GetObjectRetention"],
                "Resource": files,
            },
            {
                "Sid": "NeverDestroy", "Effect": "Deny",
                "Action": [
                    "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:DeleteBucket", "s3:PutObjectRetention", "s3:PutObjectLegalHold",
                    "s3:BypassGovernanceRetention", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning",
                    "s3:PutLifecycleConfiguration", "s3:PutBucketPolicy",
                ],
                "Resource": [whole, files],
            },
        ],
    })
}

fn maintenance(bucket: &Bucket, wanted: &Wanted) -> Value {
    let (whole, files) = resources(bucket);
    let mut on_files = vec!["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion", "s3:DeleteObject"];
    if wanted.lock.is_some() {
        on_files.extend(["s3:GetObjectRetention", "s3:PutObjectRetention"]);
    }
    if wanted.cold.is_some() {
        on_files.push("s3:RestoreObject");
    }
    let mut on_bucket = LOOK.to_vec();
    on_bucket.extend([
        "s3:ListBucketVersions",
        "s3:CreateBucket",
        "s3:PutBucketVersioning",
        "s3:PutBucketObjectLockConfiguration",
        "s3:PutEncryptionConfiguration",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutLifecycleConfiguration",
    ]);
    let mut statements = vec![
        json!({ "Sid": "LookAndSetUp", "Effect": "Allow", "Action": on_bucket, "Resource": whole }),
        json!({ "Sid": "Maintain", "Effect": "Allow", "Action": on_files, "Resource": files }),
    ];
    if wanted.lock.is_some_and(|lock| lock.mode == LockMode::Governance) {
        statements.push(json!({
            "Sid": "LocksHold", "Effect": "Deny", "Action": ["s3:BypassGovernanceRetention"], "Resource": files,
        }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_store::s3admin::{Place, plain_http};

    use super::*;

    fn bucket() -> Bucket {
        let place = Place {
            endpoint: None,
            region: "eu-central-1".to_owned(),
            bucket: "example-lifeboat".to_owned(),
            path_style: false,
        };
        Bucket::new(
            place,
            "eu/",
            plain_http().unwrap(),
            Bucket::fixed_credentials("k", "SECRET", None),
        )
        .unwrap()
    }

    #[test]
    fn the_writer_can_neither_delete_nor_weaken_a_lock() {
        let wanted = Wanted {
            lock: Some(Lock {
                mode: LockMode::Governance,
                days: 14,
            }),
            cold: None,
        };
        let plan = plan(&bucket(), &wanted);
        let statements = plan.writer["Statement"].as_array().unwrap();
        let actions = |effect: &str| -> Vec<String> {
            let of = statements.iter().filter(|statement| statement["Effect"] == effect);
            of.flat_map(|statement| statement["Action"].as_array().unwrap())
                .map(|action| action.as_str().unwrap().to_owned())
                .collect()
        };
        let allowed = actions("Allow");
        assert!(
            allowed
                .iter()
                .all(|action| !action.contains("Delete") && !action.contains('*')),
            "{allowed:?}"
        );
        assert_eq!(
            allowed.iter().filter(|action| action.contains("Put")).count(),
            1,
            "{allowed:?}"
        );
        assert!(actions("Deny").contains(&"s3:BypassGovernanceRetention".to_owned()));
        assert!(plan.maintenance.to_string().contains("s3:PutObjectRetention"));
        assert!(
            plan.commands
                .iter()
                .any(|command| command.contains("--object-lock-enabled-for-bucket"))
        );
        assert!(!format!("{plan:?}").contains("SECRET"));
    }

    #[test]
    fn words_of_a_shell_stay_whole() {
        assert_eq!(quoted("a-b.c"), "a-b.c");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
