//! `lifeboat follow`: every cluster by itself, side by side, until a signal comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use lifeboat_model::time::{parse_duration, parse_size};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::follow::{self, Options, Report, Tell};
use lifeboat_ops::protected::{Cluster, Method};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::args::Follow;
use super::context::Context;
use super::interrupt::Signals;
use super::outcomes::Outcomes;
use super::{Cx, recorder};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render;

pub(super) async fn run(cx: &Cx, args: &Follow, signals: Option<Signals>) -> Result<Exit> {
    let context = Context::load(cx)?;
    let clusters = clusters(&context, &args.what)?;
    let (stop, stopped) = watch::channel(false);
    let mut listening = JoinSet::new();
    if let Some(mut signals) = signals {
        listening.spawn(async move {
            signals.first().await;
            stop.send_replace(true);
            // The second one ends the process at once, as long as somebody listens.
            std::future::pending::<()>().await;
        });
    }
    let mut outcomes = Outcomes::new(clusters.len());
    let mut following: Vec<(String, Following<'_>)> = Vec::new();
    for (component, cluster) in clusters {
        match begin(cx, &context, component, &cluster, args).await {
            Ok((protected, instance, options)) => {
                let one = one(cx, (&context, component), protected, instance, options, stopped.clone());
                following.push((component.name.clone(), Box::pin(one)));
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    while !following.is_empty() {
        let (place, ended) = poll_fn(|context| {
            for (place, (_, one)) in following.iter_mut().enumerate() {
                if let Poll::Ready(ended) = one.as_mut().poll(context) {
                    return Poll::Ready((place, ended));
                }
            }
            Poll::Pending
        })
        .await;
        let (name, _) = following.swap_remove(place);
        match ended {
            Ok(report) => {
                if !report.gaps.is_empty() {
                    outcomes.but(Exit::INCOMPLETE);
                }
                outcomes.good(cx, as_json(&name, &report), &sentence(&name, &report));
            }
            Err(error) => outcomes.bad(cx, &name, error),
        }
    }
    outcomes.finish(cx, "follow")
}

type Following<'a> = Pin<Box<dyn Future<Output = Result<Report>> + 'a>>;

async fn one(
    cx: &Cx,
    (context, component): (&Context, &ComponentSettings),
    protected: lifeboat_ops::Protected,
    instance: Arc<lifeboat_repo::Instance>,
    options: Options,
    mut stopped: watch::Receiver<bool>,
) -> Result<Report> {
    let stop = async {
        if stopped.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let once = options.once;
    let told = async {
        // A schedule that calls it every minute leaves one record each time, of what came of it.
        if !once {
            recorder::began(cx, context, component, "follow").await;
        }
    };
    let mut run = Box::pin(follow::run(&cx.env, &protected, instance, options, stop));
    tokio::select! {
        biased;
        // A record that a store keeps waiting stands on this machine.
        report = &mut run => report,
        () = Box::pin(told) => run.await,
    }
}

type Begun = (lifeboat_ops::Protected, Arc<lifeboat_repo::Instance>, Options);

async fn begin(cx: &Cx, context: &Context, component: &ComponentSettings, cluster: &Cluster, args: &Follow) -> Result<Begun> {
    let protected = context.protected(component, &[]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    let (name, out) = (component.name.clone(), cx.out);
    let tell = Tell::to(move |event| {
        if event.is_alarm {
            render::tell(&format!("warning: {name}: {}", event.text));
        } else {
            out.note(&format!("{name}: {}", event.text));
        }
    });
    let options = Options {
        once: args.once,
        max_spool: parse_size(&args.max_spool)?,
        max_slot_lag: parse_size(&args.max_slot_lag)?,
        drop_slot_at: args.drop_slot_at.as_deref().map(parse_size).transpose()?,
        mark_every: parse_duration(&args.mark_every)?,
        ..Options::new(cluster, tell)
    };
    Ok((protected, instance, options))
}

/// The PostgreSQL clusters that `what` means.
pub(super) fn clusters<'a>(context: &'a Context, what: &[String]) -> Result<Vec<(&'a ComponentSettings, Cluster)>> {
    let mut clusters = Vec::new();
    for component in context.select(what)? {
        let named = what.contains(&component.name);
        // What is backed up by its rows has no log of ours, unless somebody asks for it.
        if let Some(cluster) = component
            .source
            .cluster()
            .filter(|cluster| named || cluster.method == Method::Physical)
        {
            clusters.push((component, cluster.clone()));
        }
    }
    if clusters.is_empty() {
        let subject = if what.is_empty() {
            "anything".to_owned()
        } else {
            what.join(", ")
        };
        return Err(Error::new(
            ErrorKind::Usage,
            "follow",
            subject,
            "only PostgreSQL clusters have a log to follow",
        )
        .with_hint("`lifeboat config show` lists the components; one with `postgres:` is a cluster"));
    }
    Ok(clusters)
}

fn sentence(component: &str, report: &Report) -> String {
    let gaps = match report.gaps.as_slice() {
        [] => String::new(),
        gaps => {
            let gaps: Vec<String> = gaps.iter().map(ToString::to_string).collect();
            format!("; MISSING FOR GOOD: {}; run a new backup", gaps.join(", "))
        }
    };
    match report.stored {
        Some(stored) => format!("{component}: the log is stored up to {stored}{gaps}"),
        None => format!("{component}: no log is stored{gaps}"),
    }
}

fn as_json(component: &str, report: &Report) -> Value {
    json!({
        "component": component,
        "lineage": report.lineage.map(|lineage| lineage.to_string()),
        "timeline": report.stored.map(|stored| stored.timeline.number()),
        "stored": report.stored.map(|stored| stored.lsn.to_string()),
        "held": report.held.map(|held| held.lsn.to_string()),
        "gaps": report.gaps.iter().map(|gap| json!({
            "timeline": gap.timeline.number(), "start": gap.start.to_string(), "end": gap.end.to_string(),
        })).collect::<Vec<_>>(),
        "alarms": report.alarms,
    })
}
