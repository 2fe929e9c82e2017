//! Tests of the engine on real libraries in temporary folders.

#[cfg(test)]
mod books;
#[cfg(test)]
mod care;
#[cfg(test)]
mod conflicts;
#[cfg(feature = "net")]
#[cfg(test)]
mod net;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod support;
#[cfg(test)]
mod writing;
