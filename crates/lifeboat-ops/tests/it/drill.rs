//! Drills on a clock that steps: durations are monotonic, and a loss that nobody can know is not told as none (docs/drills.md, DR-05).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Clock as _, Progress};
use lifeboat_ops::drill::report::{Program, Took, Who};
use lifeboat_ops::drill::{self, Point, Request, Written};
use lifeboat_testkit::env::{SimClock, sim_env};

use crate::world::World;

const HOUR_US: i64 = 3_600_000_000;

/// Whenever a step begins, a second has gone by, and somebody sets the clock.
#[derive(Debug)]
struct Steps {
    clock: Arc<SimClock>,
    by_us: i64,
}

impl Progress for Steps {
    fn step(&self, _name: &str, _total_bytes: Option<u64>) {
        self.clock.advance(Duration::from_secs(1));
        self.clock.step_wall_us(self.by_us);
    }

    fn advance(&self, _bytes: u64) {}

    fn finish(&self) {}
}

/// A backup at the beginning of the simulated time, and its drill, at the beginning of which the clock is `ahead_us` further and in each step of which
/// it is set by `by_us`.
async fn drilled(ahead_us: i64, by_us: i64) -> Written {
    let mut world = World::new(20).await;
    let (env, clock) = sim_env(3);
    world.env = env;
    assert!(world.back_up().await.unwrap().missing().next().is_none());
    clock.step_wall_us(ahead_us);
    world.env.progress = Arc::new(Steps {
        clock: Arc::clone(&clock),
        by_us,
    });
    let request = Request {
        point: Point::Latest,
        trigger: "by hand".to_owned(),
        who: Who::default(),
        program: Program::default(),
        manual: Vec::new(),
        phases: Vec::new(),
        before: Took::default(),
    };
    let scratch: PathBuf = world.protected.state_dir.join("scratch/drill");
    let identities = std::future::ready(Ok(world.identities.clone()));
    let begun_us = clock.wall_us();
    let (written, error) = drill::run(&world.env, &world.protected, identities, &request, scratch, None)
        .await
        .unwrap();
    assert_eq!(error, None, "{:?}", written.report);
    assert_eq!(written.report.began_at, lifeboat_repo::format_utc(begun_us));
    written
}

#[tokio::test]
async fn a_clock_that_is_set_meanwhile_changes_no_duration() {
    for by_us in [-HOUR_US, 0, HOUR_US] {
        let report = drilled(60_000_000, by_us).await.report;
        let measures = &report.measures;
        assert!(report.steps.len() >= 3, "{report:#?}");
        assert!(
            report
                .steps
                .iter()
                .skip(1)
                .all(|step| (step.took_s - 1.0).abs() < 1e-6 || step.took_s == 0.0),
            "{report:#?}"
        );
        let recovery_s = measures.recovery_s.unwrap();
        let cleaning = report.steps.iter().find(|step| step.name == "clean up").unwrap();
        assert!((recovery_s - cleaning.offset_s).abs() < 1e-6, "{report:#?}");
        assert!(recovery_s < 60.0 && measures.cleanup_s.unwrap() < 60.0, "{report:#?}");
    }
}

#[tokio::test]
async fn what_is_yet_to_come_is_no_loss_of_nothing() {
    // An hour later, an hour was lost.
    let later = drilled(HOUR_US, 0).await.report;
    assert!((later.measures.loss_s.unwrap() - 3600.0).abs() < 5.0, "{later:#?}");
    assert_eq!(later.verdict, "passed");
    // A moment ahead of us nothing was: clocks differ a little.
    let little = drilled(-30_000_000, 0).await.report;
    assert_eq!((little.measures.loss_s, little.verdict.as_str()), (Some(0.0), "passed"));
    // An hour ahead nobody knows.
    let ahead = drilled(-HOUR_US, 0).await.report;
    assert_eq!((ahead.measures.loss_s, ahead.verdict.as_str()), (None, "incomplete"));
    let clock = ahead.checks.iter().find(|check| check.name == "clock").unwrap();
    assert!(clock.says.contains("yet to come"), "{clock:?}");
}
