//! The bar that shows how far the loading is.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar over the bytes of the input; without their number only what was read is shown. Nothing is drawn
/// where standard error is no terminal.
pub(super) fn bar(total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}  {msg}"),
    };
    // A template that cannot be read leaves the bar as it is; a test reads both.
    let bar = match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::ProgressDrawTarget;

    #[test]
    fn both_templates_can_be_read() {
        for total in [Some(10), None] {
            let bar = bar(total);
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar.inc(5);
            assert_eq!(bar.length(), total);
        }
        for template in [
            "{bar:30} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left",
            "{spinner} {binary_bytes}  {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
