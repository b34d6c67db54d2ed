//! Schedules as cron writes them: five fields, and which minutes of a calendar they mean.
//!
//! Only a calendar, no clock and no zone: a schedule is a set of minutes of days, and whoever knows the zone says which moment such a minute
//! is. So everything about a schedule can be decided by calling it (`docs/decisions/0015-schedules-without-a-crate.md`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Days that are looked at: 28 years, after which dates and days of the week come together as before, and one more for the last gap.
const DAYS: u32 = 29 * 366;
/// Minutes of a day.
const DAY_MINUTES: u32 = 24 * 60;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is to happen: minute, hour, day of the month, month, day of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the week of which only the last of a month counts.
    last: u64,
    /// Both the day of the month and that of the week are limited: then either of them is enough, as cron has it.
    either: bool,
}

impl Cron {
    /// Reads five fields: numbers, ranges (`1-5`), lists (`1,15`), steps (`*/15`), names (`mon`, `jan`), and `friL` or `5L` for the last Friday
    /// of a month. [`ErrorKind::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |detail: String| {
            Error::new(ErrorKind::Usage, "read schedule", format_args!("'{text}'"), detail)
                .with_hint("write minute, hour, day, month and day of the week, for example `0 2 * * *` for every day at two")
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(fail(format!(
                "it has {} fields; a schedule has five: minute, hour, day, month, day of the week",
                fields.len()
            )));
        };
        let none: &[&str] = &[];
        let (weekday_set, last) = weekdays(weekday).map_err(&fail)?;
        Ok(Self {
            text: fields.join(" "),
            minutes: set(minute, "minute", 0, 59, none).map_err(&fail)?,
            hours: set(hour, "hour", 0, 23, none).map_err(&fail)?,
            days: set(day, "day of the month", 1, 31, none).map_err(&fail)?,
            months: set(month, "month", 1, 12, &MONTHS).map_err(&fail)?,
            weekdays: weekday_set,
            last,
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    /// Whether it means any minute of this day. `weekday` is 0 on Sundays.
    fn is_on(&self, day: &Day) -> bool {
        let in_month = self.days >> day.day & 1 == 1;
        let is_last = day.day + 7 > day.month_days;
        let in_week = self.weekdays >> day.weekday & 1 == 1 || (is_last && self.last >> day.weekday & 1 == 1);
        let fits = if self.either {
            in_month || in_week
        } else {
            in_month && in_week
        };
        self.months >> day.month & 1 == 1 && fits
    }

    /// The minutes of a day that it means.
    fn minutes_of_day(&self) -> impl Iterator<Item = u32> {
        let hours = (0..24_u32).filter(|hour| self.hours >> hour & 1 == 1);
        hours.flat_map(|hour| {
            let minutes = (0..60_u32).filter(|minute| self.minutes >> minute & 1 == 1);
            minutes.map(move |minute| hour * 60 + minute)
        })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The shortest and the longest time between two moments that any of `schedules` means, on a calendar whose days all have 24 hours; `None`
/// where they mean no moment at all (`0 2 30 2 *`).
#[must_use]
pub fn gaps(schedules: &[Cron]) -> Option<(Duration, Duration)> {
    // What a day looks like depends only on which of them mean it.
    let mut looks: BTreeMap<Vec<bool>, Option<Look>> = BTreeMap::new();
    let mut found: Option<(u32, u32)> = None;
    let mut before: Option<u32> = None;
    for (days, day) in (0_u32..).zip(Day::all()) {
        let on: Vec<bool> = schedules.iter().map(|schedule| schedule.is_on(&day)).collect();
        let look = looks.entry(on).or_insert_with_key(|on| Look::of(schedules, on));
        if let Some(look) = look {
            let begins = days * DAY_MINUTES + look.first;
            let across = before.map(|before| (begins - before, begins - before));
            for (short, long) in across.into_iter().chain(look.inside) {
                let (shortest, longest) = found.get_or_insert((short, long));
                *shortest = (*shortest).min(short);
                *longest = (*longest).max(long);
            }
            before = Some(days * DAY_MINUTES + look.last);
        }
    }
    let minutes = |count: u32| Duration::from_secs(u64::from(count) * 60);
    found.map(|(shortest, longest)| (minutes(shortest), minutes(longest)))
}

/// The minutes of one day that are meant: the first, the last, and the gaps between them.
struct Look {
    first: u32,
    last: u32,
    inside: Option<(u32, u32)>,
}

impl Look {
    fn of(schedules: &[Cron], on: &[bool]) -> Option<Self> {
        let meant = schedules.iter().zip(on).filter(|(_, on)| **on);
        let mut minutes: Vec<u32> = meant.flat_map(|(schedule, _)| schedule.minutes_of_day()).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let steps = || minutes.iter().zip(minutes.iter().skip(1)).map(|(one, next)| next - one);
        Some(Self {
            first: *minutes.first()?,
            last: *minutes.last()?,
            inside: steps().min().zip(steps().max()),
        })
    }
}

/// A day of the calendar.
struct Day {
    month: u32,
    day: u32,
    weekday: u32,
    month_days: u32,
}

impl Day {
    /// Each of them, from the first of January 2000, a Saturday.
    fn all() -> impl Iterator<Item = Self> {
        let (mut year, mut month, mut day) = (2000_u32, 1_u32, 0_u32);
        (0..DAYS).map(move |index| {
            day += 1;
            if day > month_days(year, month) {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            Self {
                month,
                day,
                weekday: (index + 6) % 7,
                month_days: month_days(year, month),
            }
        })
    }
}

fn month_days(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days of the week, and those of which only the last of a month counts.
fn weekdays(field: &str) -> std::result::Result<(u64, u64), String> {
    let (mut all, mut last) = (0, 0);
    for item in field.split(',') {
        let only_last = item.strip_suffix(['L', 'l']).filter(|item| !item.is_empty());
        let days = set(only_last.unwrap_or(item), "day of the week", 0, 7, &WEEKDAYS)?;
        // 7 is Sunday, too.
        let days = (days | days >> 7) & 0x7f;
        if only_last.is_some() {
            last |= days;
        } else {
            all |= days;
        }
    }
    Ok((all, last))
}

/// The numbers that a field means, one bit for each.
fn set(field: &str, what: &str, least: u32, most: u32, names: &[&str]) -> std::result::Result<u64, String> {
    let mut bits = 0_u64;
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let number = |text: &str| value(text, what, least, most, names);
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            None if step.is_some() => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        let step = match step.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step)) if step > 0 => step,
            Some(_) => return Err(format!("the step of the {what} in '{item}' is not a number of 1 or more")),
        };
        if from > to {
            return Err(format!("the {what} '{item}' ends before it begins"));
        }
        bits = (from..=to).step_by(step).fold(bits, |bits, number| bits | 1 << number);
    }
    Ok(bits)
}

fn value(text: &str, what: &str, least: u32, most: u32, names: &[&str]) -> std::result::Result<u32, String> {
    let named = names.iter().zip(least..).find(|(name, _)| text.eq_ignore_ascii_case(name));
    let number = named.map(|(_, number)| number).or_else(|| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    });
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is no {what}: it is a number from {least} to {most}")),
    }
}
