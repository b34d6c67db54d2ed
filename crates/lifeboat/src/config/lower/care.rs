//! The care of a bucket: locks, cold packs, maintenance credentials.

use lifeboat_model::cold;
use lifeboat_model::time::parse_duration;

use super::Lowering;
use crate::config::file::{ColdFile, LockFile, S3File};
use crate::config::problem::Problem;
use crate::config::store::{BucketCare, ColdCare, LockCare, S3Keys};

impl Lowering<'_> {
    pub(super) fn care(&mut self, s3: &S3File, store: &str) -> BucketCare {
        let maintenance = s3.maintenance.as_ref().and_then(|keys| {
            Some(S3Keys {
                access_key: self.credential(Some(&keys.access_key), "maintenance.access_key", store)?,
                secret_key: self.credential(Some(&keys.secret_key), "maintenance.secret_key", store)?,
                session_token: self.credential(keys.session_token.as_ref(), "maintenance.session_token", store),
            })
        });
        BucketCare {
            lock: s3.object_lock.as_ref().and_then(|lock| self.lock(lock)),
            cold: s3.cold.as_ref().and_then(|cold| self.cold(cold)),
            maintenance,
        }
    }

    fn lock(&mut self, lock: &LockFile) -> Option<LockCare> {
        let compliance = match lock.mode.value.as_str() {
            "governance" => false,
            "compliance" => true,
            other => {
                self.problems.push(
                    Problem::at(lock.mode.place, format!("`{other}` is no mode of a lock"))
                        .help("write `governance`, or `compliance` if really nobody may end a lock early"),
                );
                return None;
            }
        };
        if !(1..=36_500).contains(&lock.days.value) {
            self.problems.push(
                Problem::at(lock.days.place, format!("a lock of {} days cannot be", lock.days.value))
                    .help("write 1 to 36500 days"),
            );
            return None;
        }
        Some(LockCare {
            compliance,
            days: lock.days.value,
        })
    }

    fn cold(&mut self, cold: &ColdFile) -> Option<ColdCare> {
        let class = cold.storage_class.value.as_str();
        if cold::access(class).is_none() || class == "STANDARD" {
            self.problems.push(
                Problem::at(
                    cold.storage_class.place,
                    format!("`{class}` is no storage class that packs can move to"),
                )
                .help("write `GLACIER`, `DEEP_ARCHIVE`, `GLACIER_IR`, `STANDARD_IA` or `ONEZONE_IA`"),
            );
            return None;
        }
        match parse_duration(&cold.unreached_for.value) {
            Ok(unreached_for) => Some(ColdCare {
                unreached_for,
                storage_class: class.to_owned(),
            }),
            Err(error) => {
                self.problems.push(
                    Problem::at(cold.unreached_for.place, "`unreached_for` is not a duration")
                        .label(error.detail().to_owned())
                        .help("for example `unreached_for: 30d`"),
                );
                None
            }
        }
    }
}
