//! Dates as `strftime` writes them, in UTC and in English, so that neither locale nor environment has a say.

use std::fmt::Write;

use crate::error::{Error, Result};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Year, month from 1 and day from 1 of a day since 1970-01-01: Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as usize, day)
}

/// `format` with its `%` conversions replaced by the time `seconds` after 1970-01-01 00:00 UTC.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String> {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let weekday = (days + 4).rem_euclid(7) as usize;
    let first = |year: i64| (year - 1) * 365 + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let day_of_year = days + first(1970) - first(year) + 1;
    let hour12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut conversion = rest.next();
        // `%-d` is `%d` without the leading zero.
        let bare = conversion == Some('-');
        if bare {
            conversion = rest.next();
        }
        let mut number = |value: i64, width: usize| {
            let width = if bare { 0 } else { width };
            write!(out, "{value:0width$}")
        };
        let written = match conversion {
            Some('Y') => number(year, 4),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month as i64, 2),
            Some('d') => number(day, 2),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('j') => number(day_of_year, 3),
            Some('e') => write!(out, "{day:2}"),
            Some('B') => out.write_str(MONTHS[month - 1]),
            Some('b' | 'h') => out.write_str(&MONTHS[month - 1][..3]),
            Some('A') => out.write_str(DAYS[weekday]),
            Some('a') => out.write_str(&DAYS[weekday][..3]),
            Some('p') => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('R') => write!(out, "{hour:02}:{minute:02}"),
            Some('Z') => out.write_str("UTC"),
            Some('z') => out.write_str("+0000"),
            Some('%') => out.write_str("%"),
            _ => {
                return Err(Error::unsupported(format!(
                    "strftime_now({format:?}) has a conversion that is not built in"
                )));
            }
        };
        debug_assert!(written.is_ok(), "a String takes every write");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As Python's datetime.fromtimestamp(seconds, UTC).strftime writes them.
        let all = "%Y-%m-%d %H:%M:%S %y %j %A %a %B %b %p %I %e %-d %F %T %%";
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 70 001 Thursday Thu January Jan AM 12  1 1 1970-01-01 00:00:00 %"),
            (951_827_696, "2000-02-29 12:34:56 00 060 Tuesday Tue February Feb PM 12 29 29 2000-02-29 12:34:56 %"),
            (1_735_689_599, "2024-12-31 23:59:59 24 366 Tuesday Tue December Dec PM 11 31 31 2024-12-31 23:59:59 %"),
            (4_107_542_400, "2100-03-01 00:00:00 00 060 Monday Mon March Mar AM 12  1 1 2100-03-01 00:00:00 %"),
        ] {
            assert_eq!(strftime(all, seconds).unwrap(), expected);
        }
    }

    #[test]
    fn a_conversion_that_is_not_built_in_is_named() {
        for format in ["%Q", "%", "%-"] {
            assert!(strftime(format, 0).unwrap_err().message().contains(format));
        }
    }
}
