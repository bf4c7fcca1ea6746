//! A minijinja environment that renders chat templates as transformers' Jinja2 sandbox does
//! (`transformers/utils/chat_template_utils.py`, `_compile_jinja_template`).
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

/// `trim_blocks`, `lstrip_blocks`, Python's methods on values, `raise_exception` and Python's JSON.
pub(super) fn like_transformers() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment
}

/// The source without `{% generation %}` and `{% endgeneration %}`, which only mark what the assistant wrote. Made into an
/// `if` that holds, so that white-space control in the tags keeps its effect.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        plain.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inner, behind) = (&tag[2..end], &tag[end + 2..]);
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replacement = match name {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        match replacement {
            Some(replacement) => plain.push_str(&format!("{{%{}%}}", inner.replacen(name, replacement, 1))),
            None => plain.push_str(&tag[..end + 2]),
        }
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

/// Python's `datetime.strftime` of a fixed moment in UTC.
pub(super) fn strftime_now(unix_secs: i64) -> Value {
    Value::from_function(move |format: String| strftime(&format, unix_secs))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime(format: &str, unix_secs: i64) -> Result<String, Error> {
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
    let (days, secs) = (unix_secs.div_euclid(86_400), unix_secs.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month - 1];
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let code = letters.next();
        // `%-d` is glibc's unpadded `%d`.
        let (is_padded, code) = if code == Some('-') { (false, letters.next()) } else { (true, code) };
        let number = |number: i64| if is_padded { format!("{number:02}") } else { number.to_string() };
        match code {
            Some('Y') => text.push_str(&year.to_string()),
            Some('y') => text.push_str(&number(year.rem_euclid(100))),
            Some('m') => text.push_str(&number(month as i64)),
            Some('d') => text.push_str(&number(day)),
            Some('H') => text.push_str(&number(hour)),
            Some('I') => text.push_str(&number((hour + 11) % 12 + 1)),
            Some('M') => text.push_str(&number(minute)),
            Some('S') => text.push_str(&number(second)),
            Some('p') => text.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(&month_name[..3]),
            Some('A') => text.push_str(weekday),
            Some('a') => text.push_str(&weekday[..3]),
            Some('F') => text.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => text.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('Z') => text.push_str("UTC"),
            Some('z') => text.push_str("+0000"),
            Some('%') => text.push('%'),
            other => {
                let message = format!("strftime_now does not know `%{}`", other.map(String::from).unwrap_or_default());
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(text)
}

/// Days since 1970-01-01 -> year, month from 1, day from 1. Howard Hinnant's `civil_from_days`
/// (howardhinnant.github.io/date_algorithms.html): years start in March, so that the leap day is a year's last.
fn civil_from_days(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as usize, day)
}

/// Python's `json.dumps(value, ensure_ascii=False, indent, separators, sort_keys)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let is_sorted: Option<bool> = options.get("sort_keys")?;
    let ensures_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    // Python drops the space behind the comma when it breaks lines.
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.as_str(), colon.as_str()),
        _ => (if indent.is_some() { "," } else { ", " }, ": "),
    };
    let writer =
        JsonWriter { indent, comma, colon, is_sorted: is_sorted == Some(true), is_ascii: ensures_ascii == Some(true) };
    let mut text = String::new();
    writer.write(&value, 0, &mut text)?;
    Ok(text)
}

struct JsonWriter<'a> {
    indent: Option<usize>,
    comma: &'a str,
    colon: &'a str,
    is_sorted: bool,
    is_ascii: bool,
}

impl JsonWriter<'_> {
    fn write(&self, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.is_sorted {
                    keys.sort();
                }
                self.write_items('{', '}', &keys, depth, text, |key, text| {
                    self.write_string(&key.to_string(), text);
                    text.push_str(self.colon);
                    self.write(&value.get_item(key)?, depth + 1, text)
                })
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items('[', ']', &items, depth, text, |item, text| self.write(item, depth + 1, text))
            }
            ValueKind::String => {
                self.write_string(value.as_str().unwrap_or_default(), text);
                Ok(())
            }
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                let json = serde_json::to_string(value)
                    .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
                text.push_str(&json);
                Ok(())
            }
            kind => Err(Error::new(ErrorKind::BadSerialization, format!("tojson cannot write a value of kind {kind}"))),
        }
    }

    fn write_items(
        &self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        text: &mut String,
        write_item: impl Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        text.push(open);
        for (idx, item) in items.iter().enumerate() {
            if idx > 0 {
                text.push_str(self.comma);
            }
            self.break_line(depth + 1, text);
            write_item(item, text)?;
        }
        if !items.is_empty() {
            self.break_line(depth, text);
        }
        text.push(close);
        Ok(())
    }

    fn break_line(&self, depth: usize, text: &mut String) {
        if let Some(indent) = self.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, string: &str, text: &mut String) {
        text.push('"');
        for letter in string.chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{C}' => text.push_str("\\f"),
                control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
                other if self.is_ascii && !other.is_ascii() => {
                    let mut units = [0; 2];
                    for unit in other.encode_utf16(&mut units) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                other => text.push(other),
            }
        }
        text.push('"');
    }
}
