//! Books as they come: real files, made ones, and ones made to do harm.

#[cfg(test)]
mod epub;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod made;
#[cfg(test)]
mod pdf;
#[cfg(test)]
mod samples;
