//! How long a failed message waits.

use std::time::Duration;

use crate::config::Retry;

impl Retry {
    /// The delay in ms after the `failures`-th failure (at least 1) of message `sequence`. The same arguments give the
    /// same delay: jitter comes from them.
    pub(crate) fn delay_ms(&self, failures: u32, sequence: u64) -> i64 {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match *self {
            Retry::Immediate => 0,
            Retry::Fixed { delay } => ms(delay),
            Retry::Linear { step, most } => {
                ms(step).saturating_mul(i64::from(failures.max(1))).min(ms(most))
            }
            Retry::Exponential { first, most, jitter } => {
                let doublings = failures.saturating_sub(1).min(62);
                let delay = ms(first).saturating_mul(1 << doublings).min(ms(most));
                let random = mix(sequence ^ u64::from(failures).rotate_left(40)) % 1_000_001;
                let cut = i128::from(delay) * i128::from(jitter) * i128::from(random) / 100_000_000;
                delay - i64::try_from(cut).unwrap_or(0)
            }
        }
    }
}

/// SplitMix64's finalizer.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_grow_by_policy_up_to_their_cap() {
        let delays = |retry: Retry| [1, 2, 3, 10, 4_000_000_000].map(|n| retry.delay_ms(n, 7));
        assert_eq!(delays(Retry::Immediate), [0; 5]);
        assert_eq!(delays(Retry::Fixed { delay: SECOND }), [1000; 5]);
        assert_eq!(
            delays(Retry::Linear { step: SECOND, most: 5 * SECOND }),
            [1000, 2000, 3000, 5000, 5000]
        );
        let doubling = Retry::Exponential { first: SECOND, most: 5 * SECOND, jitter: 0 };
        assert_eq!(delays(doubling), [1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn jitter_only_shortens_spreads_and_is_the_same_for_the_same_failure() {
        let retry = Retry::Exponential { first: 10 * SECOND, most: 10 * SECOND, jitter: 50 };
        let delays: Vec<i64> = (0..1000).map(|sequence| retry.delay_ms(1, sequence)).collect();
        assert!(delays.iter().all(|delay| (5000..=10_000).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 5500));
        assert!(delays.iter().any(|delay| *delay > 9500));
        assert_eq!(retry.delay_ms(1, 42), delays[42]);
    }
}
