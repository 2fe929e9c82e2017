//! Two files in memory that can be cut off, copied, and opened again.

use std::io;
use std::sync::{Arc, Mutex};

use catchword_store::{Backends, Store};
use redb::StorageBackend;

use crate::exchange_support::device_options;

/// One file. What is flushed stays when the power goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    durable: Vec<u8>,
    bytes: Vec<u8>,
    /// Flushes that still work; absent: all.
    flushes_left: Option<u64>,
}

impl File {
    fn copy(&self) -> Self {
        let durable = self.state.lock().unwrap().durable.clone();
        let state = State { bytes: durable.clone(), durable, flushes_left: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn alive(state: &State) -> Result<(), io::Error> {
        if state.flushes_left == Some(0) { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

impl StorageBackend for File {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&state.bytes[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.state.lock().unwrap();
        Self::alive(&state)?;
        state.bytes.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.state.lock().unwrap();
        Self::alive(&state)?;
        state.flushes_left = state.flushes_left.map(|left| left - 1);
        state.durable = state.bytes.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.state.lock().unwrap();
        Self::alive(&state)?;
        let offset = usize::try_from(offset).unwrap();
        state.bytes[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// The files of one library.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    wal: File,
    library: File,
}

impl Disk {
    pub(crate) fn open(&self, device: u8) -> Store {
        let backends = Backends { wal: self.wal.clone(), library: self.library.clone() };
        Store::open_on(backends, &device_options(device)).unwrap()
    }

    /// Returns what is durable, as another disk.
    pub(crate) fn copy(&self) -> Self {
        Self { wal: self.wal.copy(), library: self.library.copy() }
    }

    /// Lets the rows' file take so many flushes more.
    pub(crate) fn cut_after(&self, flushes: u64) {
        self.library.state.lock().unwrap().flushes_left = Some(flushes);
    }

    /// Returns whether the power went.
    pub(crate) fn is_cut(&self) -> bool {
        self.library.state.lock().unwrap().flushes_left == Some(0)
    }
}
