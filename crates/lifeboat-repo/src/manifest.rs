//! The manifest: the sealed part of a backup (format 8.4).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifeboat_io::flow::EXTENT_BYTES;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use ring::aead::{Aad, Nonce};
use serde::{Deserialize, Serialize};

use crate::bytes::{Fields, hex_array, len_u32};
use crate::key::{Scope, Secret, draw_secret, file_key};
use crate::map::{ROW_BYTES, ROWS_PER_PAGE, Row};
use crate::pack::{Compressor, Form, TAG_BYTES, aead_key};
use crate::time::{format_utc, parse_utc};

/// A file as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Relative, `/`-separated.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, microseconds since 1970.
    pub modified_us: i64,
}

/// What a line of the file table stands for (format 8.4, 8.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// A file that is restored under its path.
    #[default]
    File,
    /// Content of many files, joined.
    Segment,
    /// The list of the files whose content lies in segments.
    Tree,
}

/// A file as a backup holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// What the engine said.
    pub meta: FileMeta,
    /// What it stands for.
    pub role: Role,
    /// Bytes of a page; 0 for a stream.
    pub page_size: u32,
    /// Bytes it restores to.
    pub size_bytes: u64,
    /// Keyed hash over all its content.
    pub root: [u8; 32],
    /// Its rows: first row and number of rows.
    pub(crate) ranges: Vec<(u64, u64)>,
}

impl FileRecord {
    /// Rows in all ranges.
    pub(crate) fn rows(&self) -> u64 {
        self.ranges.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Serialize, Deserialize)]
struct FileJson {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    page_size: u32,
    size_bytes: u64,
    root: String,
    ranges: Vec<(u64, u64)>,
    mode: u32,
    uid: u32,
    gid: u32,
    modified_at: String,
}

/// The file table's bytes: one JSON line a file.
pub(crate) fn encode_table(files: &[FileRecord]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for file in files {
        let json = FileJson {
            path: file.meta.path.clone(),
            kind: type_word(file).to_owned(),
            page_size: file.page_size,
            size_bytes: file.size_bytes,
            root: hex::encode(file.root),
            ranges: file.ranges.clone(),
            mode: file.meta.mode,
            uid: file.meta.uid,
            gid: file.meta.gid,
            modified_at: format_utc(file.meta.modified_us),
        };
        serde_json::to_writer(&mut bytes, &json)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the file table", error.to_string()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn type_word(file: &FileRecord) -> &'static str {
    match file.role {
        Role::Segment => "segment",
        Role::Tree => "tree",
        Role::File if file.page_size == 0 => "stream",
        Role::File => "pages",
    }
}

/// Reads a file table; a path that could climb out of the destination is refused.
pub(crate) fn decode_table(bytes: &[u8]) -> Result<Vec<FileRecord>> {
    let mut paths = HashSet::new();
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let record = decode_line(line)?;
            if paths.insert(record.meta.path.clone()) {
                Ok(record)
            } else {
                Err(Error::new(
                    ErrorKind::Corrupt,
                    "read",
                    "the file table",
                    format!("{:?} is in it twice", record.meta.path),
                ))
            }
        })
        .collect()
}

/// Ranges whose numbers a reader can add and multiply without care, and which fit the size of a page file.
fn check_ranges(json: &FileJson) -> bool {
    const LIMIT: u64 = 1 << 40;
    let mut total = 0_u64;
    let sound = json.ranges.iter().all(|(first, count)| {
        total = total.saturating_add(*count);
        *count > 0 && *first < LIMIT && *count < LIMIT && first.is_multiple_of(ROWS_PER_PAGE)
    });
    sound && total < LIMIT && (json.page_size == 0 || total == json.size_bytes.div_ceil(EXTENT_BYTES as u64))
}

fn decode_line(line: &[u8]) -> Result<FileRecord> {
    let damaged = |detail: String| Error::new(ErrorKind::Corrupt, "read", "the file table", detail);
    let json: FileJson =
        serde_json::from_slice(line).map_err(|error| damaged("a line does not parse".into()).with_source(error))?;
    check_path(&json.path)?;
    let role = match (json.kind.as_str(), json.page_size) {
        ("segment", 0) => Role::Segment,
        ("tree", 0) => Role::Tree,
        ("stream", 0) => Role::File,
        ("pages", size) if (512..=65536).contains(&size) && size.is_power_of_two() => Role::File,
        _ => return Err(damaged(format!("{:?} has an impossible type or page size", json.path))),
    };
    if !check_ranges(&json) {
        return Err(damaged(format!("{:?} has impossible rows", json.path)));
    }
    Ok(FileRecord {
        meta: FileMeta {
            path: json.path,
            mode: json.mode,
            uid: json.uid,
            gid: json.gid,
            modified_us: parse_utc(&json.modified_at)?,
        },
        role,
        page_size: json.page_size,
        size_bytes: json.size_bytes,
        root: hex_array(&json.root, "a root")?,
        ranges: json.ranges,
    })
}

/// A path inside a backup: relative, no empty, `.` or `..` part, no NUL.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let sound =
        !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..") && !path.contains('\0');
    if sound {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Corrupt,
            "use the path",
            format!("{path:?}"),
            "it is not a plain relative path",
        ))
    }
}

/// The rows of something small that stands in the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inline {
    pub(crate) size_bytes: u64,
    pub(crate) rows: Vec<Row>,
}

/// What a manifest says.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) row_space: Inline,
    pub(crate) overlay_space: Inline,
    pub(crate) file_table: Inline,
    pub(crate) facts: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct InlineJson {
    size_bytes: u64,
    rows: String,
}

impl InlineJson {
    pub(crate) fn of(inline: &Inline) -> Self {
        let bytes: Vec<u8> = inline.rows.iter().flat_map(Row::encode).collect();
        Self {
            size_bytes: inline.size_bytes,
            rows: BASE64.encode(bytes),
        }
    }

    pub(crate) fn read(&self) -> Result<Inline> {
        let damaged = || Error::new(ErrorKind::Corrupt, "read", "a manifest", "its rows are not whole");
        let bytes = BASE64.decode(&self.rows).map_err(|error| damaged().with_source(error))?;
        if bytes.len() % ROW_BYTES != 0 {
            return Err(damaged());
        }
        Ok(Inline {
            size_bytes: self.size_bytes,
            rows: bytes.chunks(ROW_BYTES).map(Row::decode).collect::<Result<_>>()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ManifestJson {
    version: u32,
    row_space: InlineJson,
    overlay_space: InlineJson,
    file_table: InlineJson,
    facts: serde_json::Value,
    tool: String,
}

const SEALED_PREFIX_BYTES: usize = 40;
/// A manifest's JSON is at most this long: what a reader makes room for.
const RAW_LIMIT_BYTES: usize = 256 << 20;

fn associated(clear: &[u8]) -> Aad<Vec<u8>> {
    let mut data = b"LBv1 manifest".to_vec();
    data.extend_from_slice(blake3::hash(clear).as_bytes());
    Aad::from(data)
}

/// A manifest, compressed, whose sealed length is known before it is sealed: the header, which names that length, is its associated data.
#[derive(Debug)]
pub(crate) struct Unsealed {
    raw_bytes: u32,
    form: Form,
    body: Vec<u8>,
}

impl Manifest {
    pub(crate) fn prepare(&self) -> Result<Unsealed> {
        let json = ManifestJson {
            version: 1,
            row_space: InlineJson::of(&self.row_space),
            overlay_space: InlineJson::of(&self.overlay_space),
            file_table: InlineJson::of(&self.file_table),
            facts: self.facts.clone(),
            tool: concat!("lifeboat ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let raw =
            serde_json::to_vec(&json).map_err(|error| Error::new(ErrorKind::Bug, "encode", "a manifest", error.to_string()))?;
        let mut compressor = Compressor::new()?;
        let (form, body) = compressor.shrink(&raw)?;
        if raw.len() > RAW_LIMIT_BYTES {
            return Err(Error::new(
                ErrorKind::Failed,
                "write",
                "the manifest",
                "it is longer than the format allows (256 MiB): the source is too large for one backup",
            ));
        }
        Ok(Unsealed {
            raw_bytes: len_u32(raw.len(), "a manifest")?,
            form,
            body: body.to_vec(),
        })
    }

    /// Opens a sealed manifest that belongs to exactly this header and closure.
    pub(crate) fn open(sealed: &[u8], data_key: &Secret, scope: &Scope, clear: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "open", "the manifest", detail);
        let mut fields = Fields::new(sealed, "a manifest");
        let salt: [u8; 32] = fields.array()?;
        let raw_bytes = fields.u32()? as usize;
        if raw_bytes > RAW_LIMIT_BYTES {
            return Err(damaged("it says that it is longer than the format allows"));
        }
        let form = Form::from_byte(fields.u8()?)?;
        fields.take(3)?;
        let mut body = sealed.get(SEALED_PREFIX_BYTES..).unwrap_or_default().to_vec();
        let key = aead_key(&file_key(data_key, &salt, scope))?;
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key([0; 12]), associated(clear), &mut body)
            .map_err(|_unspecified| {
                damaged("its authentication tag does not fit: it is damaged, or stands under another header")
            })?;
        let raw = match form {
            Form::Raw => plain.to_vec(),
            Form::Zstd => {
                zstd::bulk::decompress(plain, raw_bytes).map_err(|error| damaged("it does not decompress").with_source(error))?
            }
        };
        if raw.len() != raw_bytes {
            return Err(damaged("it has another length than it says"));
        }
        let json: ManifestJson =
            serde_json::from_slice(&raw).map_err(|error| damaged("its JSON does not parse").with_source(error))?;
        if json.version != 1 {
            return Err(damaged("it has another format version").with_kind(ErrorKind::Incompatible));
        }
        Ok(Self {
            row_space: json.row_space.read()?,
            overlay_space: json.overlay_space.read()?,
            file_table: json.file_table.read()?,
            facts: json.facts,
        })
    }
}

impl Unsealed {
    pub(crate) fn sealed_bytes(&self) -> usize {
        SEALED_PREFIX_BYTES + self.body.len() + TAG_BYTES
    }

    /// Seals under the header and closure `clear`.
    pub(crate) fn seal(mut self, env: &Env, data_key: &Secret, scope: &Scope, clear: &[u8]) -> Result<Vec<u8>> {
        // INV-05: the salt depends on what is sealed, so that a cloned machine that draws the same random bytes still gets another key
        // for another manifest.
        let random = draw_secret(env)?;
        let mut hasher = blake3::Hasher::new_keyed(&random);
        hasher.update(blake3::hash(clear).as_bytes());
        hasher.update(&self.body);
        let salt = *hasher.finalize().as_bytes();
        let key = aead_key(&file_key(data_key, &salt, scope))?;
        #[cfg(test)]
        crate::tests::sealed::note(&key, &[0; 12], associated(clear).as_ref(), &self.body);
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), associated(clear), &mut self.body)
            .map_err(|error| Error::new(ErrorKind::Bug, "seal", "a manifest", error.to_string()))?;
        let mut sealed = Vec::with_capacity(self.sealed_bytes());
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&self.raw_bytes.to_le_bytes());
        sealed.extend_from_slice(&[self.form.byte(), 0, 0, 0]);
        sealed.extend_from_slice(&self.body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}
