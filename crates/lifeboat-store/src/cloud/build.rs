//! From settings to a client of `object_store`: addresses, credentials, and nothing that the environment adds behind our back.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::http::Connector;
use super::profile::{self, Variables};
use super::settings::{AzureSettings, GcsSettings, S3Credentials, S3Settings, Secret};

/// The chain behind keys and profile: a web identity (EKS), the container (ECS, EKS Pod Identity), the machine (IMDS).
const ROLES: [(&str, AmazonS3ConfigKey); 7] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
];

/// One quick second try inside a request (a page of a listing, the rest of a body); [`super::CloudStore`] does the patient ones.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            base: 2.0,
        },
        max_retries: 1,
        retry_timeout: Duration::from_secs(120),
    }
}

fn invalid(name: &str, error: &object_store::Error) -> Error {
    // A JSON key or an account key that cannot be read would be quoted by the source.
    let detail = match error {
        object_store::Error::Generic { store, .. } => format!("the settings of {store} do not make sense"),
        other => other.to_string(),
    };
    Error::new(ErrorKind::ConfigInvalid, "open store", name, detail)
        .with_hint("check the store's bucket, endpoint and credentials in lifeboat.yaml, then run `lifeboat doctor`")
}

/// Keys and region as they take effect.
#[derive(Debug)]
pub(super) struct S3Login {
    pub(super) credentials: Option<S3Credentials>,
    pub(super) region: String,
}

/// The standard chain up to the profile: what the settings say, the environment, the profile.
pub(super) fn s3_login(settings: &S3Settings, variables: Variables<'_>) -> Result<S3Login> {
    let mut profile = profile::load(settings.profile.as_deref(), variables)?;
    let environment = || {
        Some(S3Credentials {
            access_key: variables("AWS_ACCESS_KEY_ID")?,
            secret_key: Secret::new(variables("AWS_SECRET_ACCESS_KEY")?),
            session_token: variables("AWS_SESSION_TOKEN").map(Secret::new),
        })
    };
    let credentials = match (&settings.credentials, &settings.profile) {
        (Some(own), _) => Some(own.clone()),
        (None, Some(_)) => profile.credentials.take(),
        (None, None) => environment().or_else(|| profile.credentials.take()),
    };
    let region = settings
        .region
        .clone()
        .or_else(|| variables("AWS_REGION"))
        .or_else(|| variables("AWS_DEFAULT_REGION"))
        .or(profile.region)
        .unwrap_or_else(|| "us-east-1".to_owned());
    Ok(S3Login { credentials, region })
}

/// The address that stands before the keys, without a last slash.
pub(super) fn s3_endpoint(settings: &S3Settings) -> Option<String> {
    let endpoint = settings.endpoint.as_deref()?.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !settings.path_style => Some(format!("{scheme}://{}.{host}", settings.bucket)),
        _ => Some(endpoint.to_owned()),
    }
}

pub(super) fn s3(settings: &S3Settings, connector: &Connector, name: &str, variables: Variables<'_>) -> Result<AmazonS3> {
    let login = s3_login(settings, variables)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(login.region)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_http_connector(connector.clone())
        .with_retry(retry())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Many services have no bulk deletion, and its order would not be ours.
        .with_disable_bulk_delete(true)
        // The service refuses what arrives otherwise than it left; a bucket with object lock demands it.
        .with_checksum_algorithm(Checksum::SHA256);
    if let Some(endpoint) = s3_endpoint(settings) {
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    builder = match login.credentials {
        Some(keys) => {
            let builder = builder
                .with_access_key_id(keys.access_key)
                .with_secret_access_key(keys.secret_key.expose());
            match keys.session_token {
                Some(token) => builder.with_token(token.expose()),
                None => builder,
            }
        }
        None => ROLES
            .iter()
            .fold(builder, |builder, (variable, key)| match variables(variable) {
                Some(value) => builder.with_config(*key, value),
                None => builder,
            }),
    };
    builder.build().map_err(|error| invalid(name, &error))
}

pub(super) fn gcs(
    settings: &GcsSettings,
    connector: &Connector,
    name: &str,
    variables: Variables<'_>,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&settings.bucket)
        .with_http_connector(connector.clone())
        .with_retry(retry());
    if let Some(endpoint) = &settings.endpoint {
        let http = endpoint.starts_with("http://");
        builder = builder
            .with_base_url(endpoint)
            .with_client_options(object_store::ClientOptions::new().with_allow_http(http))
            // An emulator knows nobody; a token of the real service would be given away in the clear.
            .with_skip_signature(http && settings.credentials.is_none());
    }
    if let Some(key) = &settings.credentials {
        builder = builder.with_service_account_key(key.expose());
    } else if let Some(path) = variables("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(path);
    }
    Ok(Arc::new(builder.build().map_err(|error| invalid(name, &error))?))
}

pub(super) fn azure(
    settings: &AzureSettings,
    connector: &Connector,
    name: &str,
    variables: Variables<'_>,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&settings.account)
        .with_container_name(&settings.container)
        .with_http_connector(connector.clone())
        .with_retry(retry());
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint.clone());
    }
    if let Some(key) = &settings.account_key {
        builder = builder.with_access_key(key.expose());
    } else if let Some(token) = &settings.sas_token {
        builder = builder.with_config(AzureConfigKey::SasKey, token.expose());
    } else {
        for (variable, key) in [
            ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
            ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
            ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
            ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
            ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
            ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
            ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
        ] {
            if let Some(value) = variables(variable) {
                builder = builder.with_config(key, value);
            }
        }
    }
    Ok(Arc::new(builder.build().map_err(|error| invalid(name, &error))?))
}
