//! How a library is opened: names, clock, keys. Every field has a default.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::keys::KeyStore;

/// Settings of a library. `Config::default()` suits most applications.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// What this device is called, if the library is new. Default: `device`.
    pub device_name: String,
    /// The operating system, if the library is new. Default: the one this was built for.
    pub platform: String,
    /// Added to the wall clock, in milliseconds: for trials with wrong clocks. Default: 0.
    pub clock_offset_ms: i64,
    /// Where secrets are kept. Default: files in the folder `keys` of the library.
    pub keys: Option<Arc<dyn KeyStore>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device_name: "device".to_owned(),
            platform: std::env::consts::OS.to_owned(),
            clock_offset_ms: 0,
            keys: None,
        }
    }
}

impl Config {
    /// Returns the settings with another name for this device.
    #[must_use]
    pub fn with_device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = name.into();
        self
    }

    /// Returns the settings with a shifted wall clock.
    #[must_use]
    pub fn with_clock_offset_ms(mut self, offset_ms: i64) -> Self {
        self.clock_offset_ms = offset_ms;
        self
    }

    /// Returns the settings with another place for secrets.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<dyn KeyStore>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Returns the wall clock with its offset, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_add_signed(self.clock_offset_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_shifts_the_clock_and_never_wraps_it() {
        let now = Config::default().now_ms();
        let later = Config::default().with_clock_offset_ms(3_600_000).now_ms();
        assert!((now + 3_600_000..now + 3_660_000).contains(&later));
        assert_eq!(Config::default().with_clock_offset_ms(i64::MIN).now_ms(), 0);
    }
}
