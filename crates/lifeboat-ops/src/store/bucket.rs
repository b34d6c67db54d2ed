//! A bucket: what it should be, what it is, and the steps between.
//!
//! What could not be found out is a warning of its own, never a good check. Setting up only adds: nothing of anybody else is removed or
//! weakened, and every step can be run again.

use lifeboat_model::lifecycle::{Harm, harms, old_versions_days, unfinished_uploads_days};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::s3admin::{Bucket, Lifecycle, LockMode, Setting};

use super::{RULE, Wanted, tidy_rule};
use crate::doctor::Check;

const SET_UP: &str = "`lifeboat store setup` does it; with `--print` it only shows the commands";

/// Looks at a bucket. An error only where the service cannot be reached or refuses us altogether.
pub async fn check(bucket: &Bucket, wanted: &Wanted) -> Result<Vec<Check>> {
    let name = &bucket.place().bucket;
    if !bucket.is_there().await? {
        return Ok(vec![Check::bad(format!("there is no bucket {name}"), SET_UP)]);
    }
    let mut checks = vec![Check::good(format!("the bucket {name} is there"))];
    region(bucket, &mut checks).await;
    let versioned = versioning(bucket, &mut checks).await;
    lock(bucket, wanted, &mut checks).await;
    encryption(bucket, &mut checks).await;
    public_access(bucket, &mut checks).await;
    lifecycle(bucket, wanted, versioned, &mut checks).await;
    Ok(checks)
}

/// Makes a bucket what the configuration wants; says what was changed, in words. What the service does not offer is left to [`check`].
pub async fn set_up(bucket: &Bucket, wanted: &Wanted) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if !bucket.is_there().await? {
        bucket.create(wanted.lock.is_some()).await?;
        done.push(format!("made the bucket {}", bucket.place().bucket));
    }
    if bucket.public_access_blocked().await? != Setting::Is(true) && offered(bucket.block_public_access().await)? {
        done.push("blocked public access".to_owned());
    }
    if bucket.versioning().await? != Setting::Is(true) && offered(bucket.enable_versioning().await)? {
        done.push("enabled versioning".to_owned());
    }
    if !matches!(bucket.encryption().await?, Setting::Is(_)) && offered(bucket.enable_encryption().await)? {
        done.push("set encryption by the service (AES256)".to_owned());
    }
    if let Some(lock) = wanted.lock {
        let now = bucket.lock().await?;
        let longer = matches!(now, Setting::Is(Some(now)) if now.days >= lock.days && is_as_strict(now.mode, lock.mode));
        if !longer {
            bucket.set_lock(lock).await.map_err(|error| {
                error.with_hint("many services can lock only in buckets that were made for it: use a new bucket, and let `lifeboat store setup` make it")
            })?;
            done.push(format!("set an object lock of {} days ({})", lock.days, mode(lock.mode)));
        }
    }
    let rules = match bucket.lifecycle().await? {
        Setting::Is(rules) => rules,
        Setting::NotSet => Lifecycle::default(),
        Setting::NotOffered => return Ok(done),
    };
    let ours = tidy_rule(bucket, wanted);
    if !rules.rules.contains(&ours) && offered(bucket.set_lifecycle_rule(&rules, &ours).await)? {
        done.push(format!("wrote the lifecycle rule {RULE}"));
    }
    Ok(done)
}

/// Whether the service took it; one that does not know the call is no failure.
fn offered(said: Result<()>) -> Result<bool> {
    match said {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Failed && error.detail().contains("does not offer") => Ok(false),
        Err(error) => Err(error),
    }
}

const fn is_as_strict(now: LockMode, wanted: LockMode) -> bool {
    matches!(
        (now, wanted),
        (LockMode::Compliance, _) | (LockMode::Governance, LockMode::Governance)
    )
}

const fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "governance",
        LockMode::Compliance => "compliance",
    }
}

/// What could not be asked is not good.
fn unknown(what: &str, error: &Error) -> Check {
    Check::warning(
        format!("nobody knows {what}: {}", error.detail()),
        error
            .hint()
            .unwrap_or("run `lifeboat store check` with the `maintenance` credentials")
            .to_owned(),
    )
}

async fn region(bucket: &Bucket, checks: &mut Vec<Check>) {
    let configured = &bucket.place().region;
    match bucket.region().await {
        // Services other than AWS answer with words of their own, or none.
        Ok(Setting::Is(region)) if region != *configured && bucket.place().endpoint.is_none() => checks.push(Check::bad(
            format!("the bucket is in {region}, the configuration says {configured}"),
            format!("write `region: {region}`"),
        )),
        Ok(Setting::Is(region)) => checks.push(Check::good(format!("it is in the region {region}"))),
        Ok(Setting::NotSet | Setting::NotOffered) => {}
        Err(error) => checks.push(unknown("in which region it is", &error)),
    }
}

async fn versioning(bucket: &Bucket, checks: &mut Vec<Check>) -> bool {
    let (check, versioned) = match bucket.versioning().await {
        Ok(Setting::Is(true)) => (
            Check::good("it keeps old versions: what is overwritten or deleted can be taken back"),
            true,
        ),
        Ok(Setting::Is(false) | Setting::NotSet) => (
            Check::bad(
                "it keeps no old versions: who has the credentials can overwrite or delete every backup for good",
                SET_UP,
            ),
            false,
        ),
        Ok(Setting::NotOffered) => (
            Check::warning(
                "the service keeps no old versions: who has the credentials can overwrite or delete every backup for good",
                "keep another copy in a second store",
            ),
            false,
        ),
        Err(error) => (unknown("whether it keeps old versions", &error), false),
    };
    checks.push(check);
    versioned
}

async fn lock(bucket: &Bucket, wanted: &Wanted, checks: &mut Vec<Check>) {
    let found = match bucket.lock().await {
        Ok(found) => found,
        Err(error) => return checks.push(unknown("whether it locks files", &error)),
    };
    checks.push(match (found, wanted.lock) {
        (Setting::Is(Some(now)), Some(wanted)) if now.days >= wanted.days && is_as_strict(now.mode, wanted.mode) => {
            Check::good(format!("new files are locked for {} days ({})", now.days, mode(now.mode)))
        }
        (Setting::Is(Some(now)), Some(wanted)) => Check::bad(
            format!(
                "new files are locked for {} days ({}), the configuration wants {} ({})",
                now.days,
                mode(now.mode),
                wanted.days,
                mode(wanted.mode)
            ),
            SET_UP,
        ),
        (Setting::Is(Some(now)), None) => Check::good(format!(
            "new files are locked for {} days ({}), which the configuration does not ask for",
            now.days,
            mode(now.mode)
        )),
        (Setting::Is(None), Some(_)) => Check::bad("the bucket can lock, but locks no file by itself", SET_UP),
        (Setting::NotSet, Some(_)) => Check::bad("the bucket cannot lock files", SET_UP),
        (Setting::NotOffered, Some(_)) => Check::bad(
            "the service cannot lock files, and the configuration wants it",
            "use a service that can, or remove `object_lock`",
        ),
        (Setting::Is(None) | Setting::NotSet, None) => Check::warning(
            "no file is locked: whoever may delete can delete every backup",
            "write `object_lock: { mode: governance, days: 14 }` and run `lifeboat store setup`",
        ),
        (Setting::NotOffered, None) => Check::warning(
            "the service cannot lock files: whoever may delete can delete every backup",
            "keep another copy in a second store, with other credentials",
        ),
    });
}

async fn encryption(bucket: &Bucket, checks: &mut Vec<Check>) {
    checks.push(match bucket.encryption().await {
        Ok(Setting::Is(algorithm)) => Check::good(format!("the service encrypts what it stores ({algorithm})")),
        Ok(Setting::NotSet) => Check::warning("the service does not encrypt what it stores", SET_UP),
        Ok(Setting::NotOffered) => return,
        Err(error) => unknown("whether the service encrypts what it stores", &error),
    });
}

async fn public_access(bucket: &Bucket, checks: &mut Vec<Check>) {
    checks.push(match bucket.public_access_blocked().await {
        Ok(Setting::Is(true)) => Check::good("public access is blocked"),
        Ok(Setting::Is(false) | Setting::NotSet) => Check::bad(
            "public access is not blocked: one wrong policy shows every file to everybody",
            SET_UP,
        ),
        Ok(Setting::NotOffered) => return,
        Err(error) => unknown("whether public access is blocked", &error),
    });
}

async fn lifecycle(bucket: &Bucket, wanted: &Wanted, versioned: bool, checks: &mut Vec<Check>) {
    let rules = match bucket.lifecycle().await {
        Ok(Setting::Is(rules)) => rules.rules,
        Ok(Setting::NotSet) => Vec::new(),
        Ok(Setting::NotOffered) => return,
        Err(error) => return checks.push(unknown("which rules move or delete its files", &error)),
    };
    let harms = harms(&rules, bucket.prefix());
    if harms.is_empty() {
        checks.push(Check::good("no rule of the bucket moves or deletes what a restore needs"));
    }
    for (rule, harm) in harms {
        checks.push(harmful(&rule.id, &harm));
    }
    if unfinished_uploads_days(&rules, bucket.prefix()).is_none() {
        checks.push(Check::warning(
            "uploads that were never finished stay there, unseen and paid for",
            SET_UP,
        ));
    }
    if versioned {
        let least = wanted.lock.map_or(0, |lock| lock.days);
        match old_versions_days(&rules, bucket.prefix()) {
            None => checks.push(Check::warning(
                "deleted versions are kept for ever: no space ever comes back",
                SET_UP,
            )),
            Some(days) if days < least => checks.push(Check::warning(
                format!("old versions vanish after {days} days, but locks last {least}"),
                SET_UP,
            )),
            Some(days) => checks.push(Check::good(format!(
                "old versions vanish {days} days after they were replaced"
            ))),
        }
    }
}

fn harmful(rule: &str, harm: &Harm) -> Check {
    let by_reach =
        "remove the rule; `cold: { unreached_for: 30d, storage_class: … }` moves only what recent backups no longer reach";
    match harm {
        Harm::Deletes(when) => Check::bad(
            format!(
                "the rule {rule:?} deletes files {when}, also those that the newest backup needs: unchanged data is stored once"
            ),
            "remove the expiration from the rule; `lifeboat prune` deletes what no backup needs",
        ),
        Harm::Freezes(when, class) => Check::bad(
            format!(
                "the rule {rule:?} moves files to {class} {when}, also those that the newest backup needs: a restore would wait for hours"
            ),
            by_reach,
        ),
        Harm::Charges(when, class) => Check::warning(
            format!("the rule {rule:?} moves files to {class} {when}: reading them for a restore costs extra"),
            by_reach,
        ),
        Harm::Unknown(when, class) => Check::warning(
            format!("the rule {rule:?} moves files to {class} {when}; nobody here knows how long they then take to read"),
            by_reach,
        ),
    }
}
