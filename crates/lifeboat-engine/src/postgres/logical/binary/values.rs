//! One value each: the text that the server writes for it in, what its receive function takes out. Nothing where the text is another one.

/// Units of times.
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i64 = 10_957;
/// Digits of a decimal number are sent in groups of four (`NBASE`).
const GROUP: usize = 4;
/// Decimal places that a number may have (`NUMERIC_DSCALE_MAX`), and digits before them.
const MOST_PLACES: usize = 16_383;
const MOST_DIGITS: usize = 131_072;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

pub(super) fn bool(text: &[u8]) -> Option<u8> {
    match text {
        b"t" => Some(1),
        b"f" => Some(0),
        _ => None,
    }
}

/// Digits, and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| sum * 10 + u64::from(digit))
    })
}

pub(super) fn int<T: TryFrom<i64>>(text: &[u8]) -> Option<T> {
    let (is_negative, number) = match text.split_first()? {
        (b'-', number) => (true, number),
        _ => (false, text),
    };
    let value = match digits(number) {
        Some(value) => {
            let value = i64::try_from(value).ok()?;
            if is_negative { -value } else { value }
        }
        // Nineteen digits, most of which are a number all the same.
        None if number.len() == 19 && number.iter().all(u8::is_ascii_digit) => std::str::from_utf8(text).ok()?.parse().ok()?,
        None => return None,
    };
    T::try_from(value).ok()
}

/// What may be told otherwise than the server would, because it is too large, too small or no number, is the server's to judge.
macro_rules! float {
    ($name:ident, $type:ident) => {
        pub(super) fn $name(text: &[u8]) -> Option<$type> {
            match text {
                b"0" => return Some(0.0),
                b"-0" => return Some(-0.0),
                b"Infinity" => return Some($type::INFINITY),
                b"-Infinity" => return Some($type::NEG_INFINITY),
                b"NaN" => return Some($type::NAN),
                _ => {}
            }
            let is_number = text.strip_prefix(b"-").unwrap_or(text).first()?.is_ascii_digit();
            let value: $type = std::str::from_utf8(text).ok()?.parse().ok()?;
            (is_number && value.is_normal()).then_some(value)
        }
    };
}
float!(float4, f32);
float!(float8, f64);

/// `numeric_recv`: how many groups, the weight of the first, sign, decimal places, the groups.
pub(super) fn numeric(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut put = |count: usize, weight: i32, sign: u16, places: usize| {
        out.extend_from_slice(&u16::try_from(count).ok()?.to_be_bytes());
        out.extend_from_slice(&i16::try_from(weight).ok()?.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&u16::try_from(places).ok()?.to_be_bytes());
        Some(())
    };
    match text {
        b"NaN" => return put(0, 0, NOT_A_NUMBER, 0),
        b"Infinity" => return put(0, 0, INFINITY, 0),
        b"-Infinity" => return put(0, 0, MINUS_INFINITY, 0),
        _ => {}
    }
    let (sign, number) = match text.strip_prefix(b"-") {
        Some(number) => (NEGATIVE, number),
        None => (0, text),
    };
    let point = memchr::memchr(b'.', number);
    let (before, behind) = number.split_at(point.unwrap_or(number.len()));
    let behind = match behind.split_first() {
        Some((_, [])) => return None,
        Some((_, places)) => places,
        None => behind,
    };
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if before.is_empty() || before.len() > MOST_DIGITS || behind.len() > MOST_PLACES || !is_number(before) || !is_number(behind) {
        return None;
    }
    let zeros = before.iter().take_while(|digit| **digit == b'0').count();
    let before = before.get(zeros..)?;
    let (whole, broken) = (before.len().div_ceil(GROUP), behind.len().div_ceil(GROUP));
    let weight = i32::try_from(whole).ok()? - 1;
    put(whole + broken, weight, sign, behind.len())?;
    let mut group = |digits: &[u8], padding: u32| {
        let value = digits.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        out.extend_from_slice(&(value * 10_u16.pow(padding)).to_be_bytes());
    };
    let (first, others) = before.split_at(before.len() % GROUP);
    if !first.is_empty() {
        group(first, 0);
    }
    others.chunks(GROUP).for_each(|digits| group(digits, 0));
    for digits in behind.chunks(GROUP) {
        group(digits, u32::try_from(GROUP - digits.len()).ok()?);
    }
    Some(())
}

/// `\x` and two digits for each byte.
pub(super) fn bytea(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = text.strip_prefix(b"\\x")?.as_chunks::<2>();
    for [high, low] in pairs {
        out.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    rest.is_empty().then_some(())
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

pub(super) fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut value = [0; 16];
    let mut places = value.iter_mut();
    for (part, range) in [(0, 0..8), (9, 9..13), (14, 14..18), (19, 19..23), (24, 24..36)] {
        if part > 0 && text.get(part - 1) != Some(&b'-') {
            return None;
        }
        for [high, low] in text.get(range)?.as_chunks::<2>().0 {
            *places.next()? = nibble(*high)? << 4 | nibble(*low)?;
        }
    }
    Some(value)
}

/// Days since 2000-01-01.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => return Some(i32::MAX),
        b"-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (days, rest) = day(text)?;
    rest.is_empty().then(|| i32::try_from(days).ok())?
}

/// `YYYY-MM-DD`, of years with up to six digits after Christ, and what follows.
fn day(text: &[u8]) -> Option<(i64, &[u8])> {
    let dash = if text.get(4) == Some(&b'-') {
        4
    } else {
        memchr::memchr(b'-', text.get(..7)?)?
    };
    let year = i64::try_from(digits(text.get(..dash)?)?).ok()?;
    let rest = text.get(dash + 1..)?;
    let (month, day) = (two(rest)?, two(rest.get(3..)?)?);
    if dash < 4
        || year == 0
        || rest.get(2) != Some(&b'-')
        || !(1..=12).contains(&month)
        || !(1..=length(year, month)).contains(&day)
    {
        return None;
    }
    // Years that begin in March have their leap day at the end; 400 of them are 146,097 days.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    // 0000-03-01 lies 719,468 days before 1970.
    Some((days - 719_468 - EPOCH_DAYS, rest.get(5..)?))
}

/// Days of a month.
fn length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Two digits at the beginning.
fn two(text: &[u8]) -> Option<i64> {
    let value = |digit: &u8| digit.is_ascii_digit().then(|| i64::from(digit - b'0'));
    Some(value(text.first()?)? * 10 + value(text.get(1)?)?)
}

/// `HH:MM:SS`, up to six decimal places of seconds, and what follows; in microseconds.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, minutes, seconds) = (two(text)?, two(text.get(3..)?)?, two(text.get(6..)?)?);
    if text.get(2) != Some(&b':') || text.get(5) != Some(&b':') || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let whole = hours * HOUR + minutes * MINUTE + seconds * SECOND;
    let rest = text.get(8..)?;
    let Some(places) = rest.strip_prefix(b".") else {
        return Some((whole, rest));
    };
    let count = places.iter().take_while(|digit| digit.is_ascii_digit()).count();
    let padding = 6_u32.checked_sub(u32::try_from(count).ok()?)?;
    let micros = i64::try_from(digits(places.get(..count)?)?).ok()? * 10_i64.pow(padding);
    Some((whole + micros, places.get(count..)?))
}

/// Microseconds of the day.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    if text == b"24:00:00" {
        return Some(DAY);
    }
    let (time, rest) = clock(text)?;
    rest.is_empty().then_some(time)
}

/// Microseconds since 2000-01-01 in UTC; one without a zone is taken as it is.
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (days, rest) = day(text)?;
    let (time, rest) = clock(rest.strip_prefix(b" ")?)?;
    // Any other zone than the session's is the server's to read.
    matches!(rest, b"" | b"+00").then(|| days * DAY + time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_exactly_or_not_at_all() {
        assert_eq!(int::<i16>(b"-32768"), Some(i16::MIN));
        assert_eq!(int::<i64>(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(int::<i64>(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(int::<u32>(b"4294967295"), Some(u32::MAX));
        for wrong in [&b""[..], b"-", b"+1", b" 1", b"1 ", b"1.0", b"32768", b"0x1", b"1_0"] {
            assert_eq!(int::<i16>(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(int::<i64>(b"9223372036854775808"), None);
        assert_eq!(float8(b"-0").map(f64::to_bits), Some((-0.0_f64).to_bits()));
        assert_eq!(float8(b"1e+300"), Some(1e300));
        assert_eq!(float4(b"3.4028235e+38"), Some(f32::MAX));
        assert!(float8(b"NaN").is_some_and(f64::is_nan));
        assert_eq!(float4(b"-Infinity"), Some(f32::NEG_INFINITY));
        for wrong in [
            &b"1e999"[..],
            b"1e-999",
            b"inf",
            b"nan",
            b"infinity",
            b"+1",
            b"",
            b"-",
            b"0x1p3",
            b"5e-324",
        ] {
            assert_eq!(float8(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    /// 0x…: groups, weight, sign, places, and the groups.
    #[test]
    fn decimal_numbers_are_groups_of_four() {
        let of = |text: &[u8]| {
            let mut out = Vec::new();
            numeric(text, &mut out)?;
            let words: Vec<u16> = out.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
            Some(words)
        };
        assert_eq!(of(b"0").unwrap(), [0, 0xFFFF, 0, 0]);
        assert_eq!(of(b"12345.6").unwrap(), [3, 1, 0, 1, 1, 2345, 6000]);
        assert_eq!(of(b"-0.00012").unwrap(), [2, 0xFFFF, 0x4000, 5, 1, 2000]);
        assert_eq!(of(b"100000000").unwrap(), [3, 2, 0, 0, 1, 0, 0]);
        assert_eq!(of(b"NaN").unwrap(), [0, 0, 0xC000, 0]);
        for wrong in [&b""[..], b"-", b".5", b"5.", b"1e5", b"1.2.3", b"--1", b"1-2", b"infinity"] {
            assert_eq!(of(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn times_are_counted_from_the_year_2000() {
        assert_eq!(date(b"2000-01-01"), Some(0));
        assert_eq!(date(b"1999-12-31"), Some(-1));
        assert_eq!(date(b"2000-03-01"), Some(60));
        assert_eq!(date(b"0001-01-01"), Some(-730_119));
        assert_eq!(date(b"5874897-12-31"), None);
        assert_eq!(timestamp(b"2000-01-01 00:00:00+00"), Some(0));
        assert_eq!(timestamp(b"2000-01-01 00:00:00.5"), Some(500_000));
        assert_eq!(timestamp(b"1999-12-31 23:59:59.999999"), Some(-1));
        assert_eq!(timestamp(b"294276-12-31 23:59:59.999999"), Some(9_223_371_331_199_999_999));
        assert_eq!(time(b"24:00:00"), Some(DAY));
        for wrong in [
            &b"2000-02-30 00:00:00"[..],
            b"1900-02-29 00:00:00",
            b"2000-00-01 00:00:00",
            b"2000-01-01 24:00:00",
            b"2000-01-01 00:00:60",
            b"2000-01-01 00:00:00.1234567",
            b"2000-01-01 00:00:00.",
            b"2000-01-01 00:00:00+01",
            b"2000-01-01 00:00:00 BC",
            b"0044-03-15 00:00:00 BC",
            b"0000-01-01 00:00:00",
            b"200-01-01 00:00:00",
            b"2000-1-01 00:00:00",
            b"2000-01-01",
            b"2000-01-01T00:00:00",
            b"today",
            b"",
        ] {
            assert_eq!(timestamp(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn bytes_are_pairs_of_digits() {
        let mut out = Vec::new();
        bytea(b"\\x00ff7a", &mut out).unwrap();
        assert_eq!(out, [0, 255, 0x7a]);
        for wrong in [&b"00"[..], b"\\x0", b"\\xgg", b"\\x00FF"] {
            assert_eq!(bytea(wrong, &mut Vec::new()), None);
        }
        assert_eq!(uuid(b"00112233-4455-6677-8899-aabbccddeeff").unwrap()[15], 0xff);
        for wrong in [
            &b"00112233445566778899aabbccddeeff"[..],
            b"00112233-4455-6677-8899-aabbccddeefg",
            b"00112233-4455-6677-8899aabbccddeeff-",
            b"{0112233-4455-6677-8899-aabbccddeef}",
        ] {
            assert_eq!(uuid(wrong), None);
        }
    }
}
