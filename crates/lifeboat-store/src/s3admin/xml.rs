//! The documents of these calls: small enough to be written by hand, read with a parser.
//!
//! Must not send anything. What a document does not say is empty here, never guessed.

use lifeboat_model::Result;
use lifeboat_model::lifecycle::{Rule, When};
use serde::Deserialize;

use super::{Lock, LockMode};

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

fn document(name: &str, content: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{name} xmlns=\"{NAMESPACE}\">{content}</{name}>")
}

fn text(value: &str) -> String {
    quick_xml::escape::escape(value).into_owned()
}

pub(super) fn location(region: &str) -> String {
    document(
        "CreateBucketConfiguration",
        &format!("<LocationConstraint>{}</LocationConstraint>", text(region)),
    )
}

pub(super) fn versioning() -> String {
    document("VersioningConfiguration", "<Status>Enabled</Status>")
}

pub(super) fn object_lock(lock: Lock) -> String {
    document(
        "ObjectLockConfiguration",
        &format!(
            "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{}</Mode><Days>{}</Days></DefaultRetention></Rule>",
            lock.mode.as_str(),
            lock.days
        ),
    )
}

pub(super) fn encryption() -> String {
    document(
        "ServerSideEncryptionConfiguration",
        "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>",
    )
}

pub(super) fn public_access_block() -> String {
    document(
        "PublicAccessBlockConfiguration",
        "<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
         <BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets>",
    )
}

/// One of our own rules: it ends uploads and deletes old versions, nothing else.
pub(super) fn rule(rule: &Rule) -> String {
    let mut content = format!(
        "<ID>{}</ID><Filter><Prefix>{}</Prefix></Filter><Status>Enabled</Status>",
        text(&rule.id),
        text(&rule.prefix)
    );
    if let Some(days) = rule.old_versions_days {
        // The marker that a deletion leaves goes when nothing is left behind it.
        content.push_str("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>");
        content.push_str(&format!(
            "<NoncurrentVersionExpiration><NoncurrentDays>{days}</NoncurrentDays></NoncurrentVersionExpiration>"
        ));
    }
    if let Some(days) = rule.ends_uploads_days {
        content.push_str(&format!(
            "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
        ));
    }
    format!("<Rule>{content}</Rule>")
}

pub(super) fn lifecycle(rules: &[String]) -> String {
    document("LifecycleConfiguration", &rules.concat())
}

pub(super) fn retention(mode: LockMode, until: &str) -> String {
    document(
        "Retention",
        &format!(
            "<Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate>",
            mode.as_str(),
            text(until)
        ),
    )
}

pub(super) fn restore(days: u32) -> String {
    document(
        "RestoreRequest",
        &format!("<Days>{days}</Days><GlacierJobParameters><Tier>Standard</Tier></GlacierJobParameters>"),
    )
}

/// The elements `<name>…</name>` of a document that do not lie in one another, as they are written.
pub(super) fn elements(document: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = document;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((content, behind)) = after.split_once(&close) else {
            break;
        };
        found.push(format!("{open}{content}{close}"));
        rest = behind;
    }
    found
}

#[derive(Deserialize)]
pub(super) struct Location {
    #[serde(rename = "$text", default)]
    pub(super) value: String,
}

#[derive(Deserialize)]
pub(super) struct Versioning {
    #[serde(rename = "Status", default)]
    pub(super) status: String,
}

#[derive(Deserialize)]
pub(super) struct ObjectLock {
    #[serde(rename = "ObjectLockEnabled", default)]
    pub(super) enabled: String,
    #[serde(rename = "Rule")]
    rule: Option<LockRule>,
}

#[derive(Deserialize)]
struct LockRule {
    #[serde(rename = "DefaultRetention")]
    retention: DefaultRetention,
}

#[derive(Deserialize)]
struct DefaultRetention {
    #[serde(rename = "Mode")]
    mode: String,
    #[serde(rename = "Days")]
    days: Option<u32>,
    #[serde(rename = "Years")]
    years: Option<u32>,
}

impl ObjectLock {
    pub(super) fn default_lock(self) -> Result<Option<Lock>> {
        let Some(rule) = self.rule else { return Ok(None) };
        let years = rule.retention.years.unwrap_or(0).saturating_mul(365);
        Ok(Some(Lock {
            mode: LockMode::parse(&rule.retention.mode)?,
            days: rule.retention.days.unwrap_or(years),
        }))
    }
}

#[derive(Deserialize)]
pub(super) struct Encryption {
    #[serde(rename = "Rule", default)]
    rules: Vec<EncryptionRule>,
}

#[derive(Deserialize)]
struct EncryptionRule {
    #[serde(rename = "ApplyServerSideEncryptionByDefault")]
    default: Option<DefaultEncryption>,
}

#[derive(Deserialize)]
struct DefaultEncryption {
    #[serde(rename = "SSEAlgorithm")]
    algorithm: String,
}

impl Encryption {
    pub(super) fn algorithm(self) -> Option<String> {
        self.rules
            .into_iter()
            .find_map(|rule| rule.default)
            .map(|default| default.algorithm)
    }
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the document has four")]
pub(super) struct PublicAccess {
    #[serde(rename = "BlockPublicAcls", default)]
    acls: bool,
    #[serde(rename = "IgnorePublicAcls", default)]
    ignore: bool,
    #[serde(rename = "BlockPublicPolicy", default)]
    policy: bool,
    #[serde(rename = "RestrictPublicBuckets", default)]
    restrict: bool,
}

impl PublicAccess {
    pub(super) fn all(&self) -> bool {
        self.acls && self.ignore && self.policy && self.restrict
    }
}

#[derive(Deserialize)]
pub(super) struct Lifecycle {
    #[serde(rename = "Rule", default)]
    pub(super) rules: Vec<LifecycleRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LifecycleRule {
    #[serde(rename = "ID", default)]
    id: String,
    status: String,
    #[serde(default)]
    prefix: Option<String>,
    filter: Option<Filter>,
    expiration: Option<Time>,
    #[serde(rename = "Transition", default)]
    transitions: Vec<Time>,
    noncurrent_version_expiration: Option<Time>,
    abort_incomplete_multipart_upload: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    prefix: Option<String>,
    tag: Option<Tag>,
    and: Option<And>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct And {
    prefix: Option<String>,
    #[serde(default, rename = "Tag")]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Time {
    days: Option<u32>,
    date: Option<String>,
    noncurrent_days: Option<u32>,
    days_after_initiation: Option<u32>,
    #[serde(default)]
    storage_class: String,
}

impl Time {
    fn when(&self) -> Option<When> {
        match (self.days, &self.date) {
            (Some(days), _) => Some(When::Days(days)),
            (None, Some(date)) => Some(When::Date(date.clone())),
            // A marker's expiration has neither.
            (None, None) => None,
        }
    }
}

impl From<LifecycleRule> for Rule {
    fn from(rule: LifecycleRule) -> Self {
        let filter = rule.filter.as_ref();
        let and = filter.and_then(|filter| filter.and.as_ref());
        let prefix = rule
            .prefix
            .or_else(|| filter.and_then(|filter| filter.prefix.clone()))
            .or_else(|| and.and_then(|and| and.prefix.clone()));
        Self {
            enabled: rule.status == "Enabled",
            prefix: prefix.unwrap_or_default(),
            tagged: filter.is_some_and(|filter| filter.tag.is_some()) || and.is_some_and(|and| !and.tags.is_empty()),
            expires: rule.expiration.as_ref().and_then(Time::when),
            moves: rule
                .transitions
                .into_iter()
                .filter_map(|time| Some((time.when()?, time.storage_class)))
                .collect(),
            old_versions_days: rule.noncurrent_version_expiration.and_then(|time| time.noncurrent_days),
            ends_uploads_days: rule
                .abort_incomplete_multipart_upload
                .and_then(|time| time.days_after_initiation),
            id: rule.id,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Versions {
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_version_id_marker: Option<String>,
    #[serde(rename = "$value", default)]
    pub(super) items: Vec<Item>,
}

/// Versions and markers come mixed; whatever else stands in the document is passed over.
#[derive(Deserialize)]
pub(super) enum Item {
    Version(VersionItem),
    DeleteMarker(VersionItem),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersionItem {
    pub(super) key: String,
    pub(super) version_id: String,
    pub(super) is_latest: bool,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) storage_class: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Files {
    #[serde(default)]
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
    #[serde(default)]
    pub(super) contents: Vec<FileItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FileItem {
    pub(super) key: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) storage_class: String,
}

/// An answer of 200 whose body is an error (a copy that failed in mid-way).
pub(super) fn says_error(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("<Error>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_every_shape_are_read() {
        let document = r#"<?xml version="1.0" encoding="UTF-8"?>
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Rule><ID>old</ID><Prefix>eu/</Prefix><Status>Enabled</Status><Expiration><Days>90</Days></Expiration></Rule>
  <Rule><ID>and</ID><Filter><And><Prefix>x/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter><Status>Disabled</Status>
    <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>
    <Transition><Date>2027-01-01T00:00:00Z</Date><StorageClass>DEEP_ARCHIVE</StorageClass></Transition></Rule>
  <Rule><Filter/><Status>Enabled</Status><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>
    <NoncurrentVersionExpiration><NoncurrentDays>15</NoncurrentDays></NoncurrentVersionExpiration>
    <AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
</LifecycleConfiguration>"#;
        let parsed: Lifecycle = quick_xml::de::from_str(document).unwrap();
        let rules: Vec<Rule> = parsed.rules.into_iter().map(Rule::from).collect();
        assert_eq!(elements(document, "Rule").len(), 3);
        assert_eq!(
            rules,
            [
                Rule {
                    id: "old".into(),
                    enabled: true,
                    prefix: "eu/".into(),
                    expires: Some(When::Days(90)),
                    ..Rule::default()
                },
                Rule {
                    id: "and".into(),
                    prefix: "x/".into(),
                    tagged: true,
                    moves: vec![
                        (When::Days(30), "GLACIER".into()),
                        (When::Date("2027-01-01T00:00:00Z".into()), "DEEP_ARCHIVE".into())
                    ],
                    ..Rule::default()
                },
                Rule {
                    enabled: true,
                    old_versions_days: Some(15),
                    ends_uploads_days: Some(3),
                    ..Rule::default()
                },
            ]
        );
    }

    #[test]
    fn our_own_rule_reads_as_it_was_written() {
        let ours = Rule {
            id: "lifeboat-tidy".into(),
            enabled: true,
            prefix: "a&b/".into(),
            old_versions_days: Some(15),
            ends_uploads_days: Some(3),
            ..Rule::default()
        };
        let parsed: Lifecycle = quick_xml::de::from_str(&lifecycle(&[rule(&ours)])).unwrap();
        let rules: Vec<Rule> = parsed.rules.into_iter().map(Rule::from).collect();
        assert_eq!(rules, [ours]);
    }

    #[test]
    fn versions_and_markers_come_mixed() {
        let document = "<ListVersionsResult xmlns=\"x\"><Name>b</Name><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
            <Version><Key>a</Key><VersionId>1</VersionId><IsLatest>true</IsLatest><Size>5</Size><StorageClass>STANDARD</StorageClass><Owner><ID>o</ID></Owner></Version>\
            <DeleteMarker><Key>b</Key><VersionId>2</VersionId><IsLatest>true</IsLatest></DeleteMarker>\
            <Version><Key>b</Key><VersionId>0</VersionId><IsLatest>false</IsLatest><Size>7</Size></Version></ListVersionsResult>";
        let parsed: Versions = quick_xml::de::from_str(document).unwrap();
        assert!(parsed.is_truncated);
        assert_eq!(parsed.next_key_marker.as_deref(), Some("k"));
        let real = parsed.items.iter().filter(|item| !matches!(item, Item::Other)).count();
        assert_eq!(real, 3);
    }
}
