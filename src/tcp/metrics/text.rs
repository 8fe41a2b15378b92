//! The two formats of `/metrics`, and which of them a scraper gets.
//!
//! The registry writes OpenMetrics. The older text format 0.0.4, which every tool reads, differs in
//! few places: the name of a counter has its `_total` in the comments too, there are no units and no
//! end mark, and an info is a gauge. One is made of the other line by line.

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client that sends this `Accept` header: OpenMetrics if it is named and not
    /// wanted less than the text format, which everybody else gets.
    pub fn accepted(accept: Option<&str>) -> Format {
        let mut best: [Option<f32>; 2] = [None; 2];
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let place = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => 1,
                "text/plain" | "text/*" => 0,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            let quality = quality.parse::<f32>().unwrap_or(0.0);
            best[place] = Some(best[place].unwrap_or(0.0).max(quality));
        }
        match best {
            [text, Some(open)] if open > 0.0 && open >= text.unwrap_or(0.0) => Format::OpenMetrics,
            _ => Format::Text,
        }
    }

    /// The `Content-Type` of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// OpenMetrics as text of version 0.0.4.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The comments of a family stand together, the type behind the help.
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), rest) => help = Some((name, rest)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                if let Some((_, words)) = help.take_if(|(of, _)| *of == name) {
                    text += &format!("# HELP {name}{suffix} {}\n", words.unwrap_or_default());
                }
                text += &format!("# TYPE {name}{suffix} {kind}\n");
            }
            (Some("#"), ..) => {}
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("text/html, application/xml;q=0.9"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
            (Some("text/plain, application/openmetrics-text;q=0.5"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_text_format_has_its_own_names_and_types() {
        let open = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total 1.5\n# HELP b What.\n# TYPE b info\nb_info{v=\"x # y\"} 1\n\
                    # HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n# EOF\n";
        let text = "# HELP a_seconds_total How long.\n# TYPE a_seconds_total counter\n\
                    a_seconds_total 1.5\n# HELP b_info What.\n# TYPE b_info gauge\n\
                    b_info{v=\"x # y\"} 1\n# HELP c C.\n# TYPE c histogram\n\
                    c_bucket{le=\"+Inf\"} 0\n";
        assert_eq!(plain(open), text);
    }
}
