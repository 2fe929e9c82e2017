//! The application's own data: JSON in and out, without a type of automerge.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, ReadDoc, ScalarValue};
use serde_json::{Map, Number, Value};

use crate::schema::KEY_BYTES_MAX;

/// How deep the data may be nested.
pub const DEPTH_MAX: usize = 16;

/// The application's data was not edited as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The path is empty, too deep, or has a key that is empty or too long.
    #[error("path {path} is empty, deeper than {DEPTH_MAX} or has a key that is not allowed")]
    Path {
        /// The path, its keys divided by slashes.
        path: String,
    },
    /// Something on the path is a value and not a map or a list, or a list has no such place.
    #[error("path {path} leads nowhere")]
    NoContainer {
        /// The path, its keys divided by slashes.
        path: String,
    },
    /// Automerge could not carry it out.
    #[error("automerge could not carry out the edit")]
    Failed,
}

/// The application's data while it is edited. See [`Document::edit_app`](super::Document::edit_app).
///
/// A path is keys of maps and, for a list, the place of an element as decimal text. Maps merge key
/// by key; of two values written to one key without knowing of each other, one is shown.
pub struct AppData<'a, 'd> {
    transaction: &'a mut Transaction<'d>,
    root: ObjId,
}

impl<'a, 'd> AppData<'a, 'd> {
    pub(super) fn new(transaction: &'a mut Transaction<'d>, root: ObjId) -> Self {
        Self { transaction, root }
    }

    /// Returns what is at a path; the empty path is everything.
    pub fn get(&self, path: &[&str]) -> Option<Value> {
        let Some((last, parents)) = path.split_last() else {
            return Some(object(self.transaction, &self.root, 0));
        };
        let mut parent = self.root.clone();
        for key in parents {
            let place = self.place(&parent, key)?;
            let (value, child) = self.read(&parent, &place)?;
            parent = value.is_object().then_some(child)?;
        }
        let place = self.place(&parent, last)?;
        let (found, child) = self.read(&parent, &place)?;
        Some(value(self.transaction, &found, &child, parents.len()))
    }

    /// Puts a value at a path. Maps that are missing on the way are made.
    ///
    /// Putting what is there already changes nothing.
    ///
    /// # Errors
    ///
    /// [`AppError`]. The whole edit is then given up if it is returned from it.
    pub fn put(&mut self, path: &[&str], value: &Value) -> Result<(), AppError> {
        let (last, parents) = checked(path, depth(value))?;
        if !keys_fit(value) {
            return Err(AppError::Path { path: path.join("/") });
        }
        if self.get(path).as_ref() == Some(value) {
            return Ok(());
        }
        let mut parent = self.root.clone();
        for key in parents {
            let place = self.place(&parent, key).ok_or_else(|| nowhere(path))?;
            parent = match self.read(&parent, &place) {
                Some((found, child)) if found.is_object() => child,
                Some(_) => return Err(nowhere(path)),
                None => self.make(&parent, &place, ObjType::Map).map_err(failed)?,
            };
        }
        let place = self.place(&parent, last).ok_or_else(|| nowhere(path))?;
        self.write(&parent, &place, value).map_err(failed)
    }

    /// Removes what is at a path. Nothing being there changes nothing.
    ///
    /// # Errors
    ///
    /// [`AppError`]. The whole edit is then given up if it is returned from it.
    pub fn delete(&mut self, path: &[&str]) -> Result<(), AppError> {
        let (last, parents) = checked(path, 0)?;
        let mut parent = self.root.clone();
        for key in parents {
            let found = self.place(&parent, key).and_then(|place| self.read(&parent, &place));
            match found {
                Some((value, child)) if value.is_object() => parent = child,
                Some(_) => return Err(nowhere(path)),
                None => return Ok(()),
            }
        }
        let place = self.place(&parent, last).ok_or_else(|| nowhere(path))?;
        match &place {
            _ if self.read(&parent, &place).is_none() => Ok(()),
            Place::Key(key) => self.transaction.delete(&parent, key.as_str()).map_err(failed),
            Place::Element(at) => self.transaction.delete(&parent, *at).map_err(failed),
        }
    }

    /// Where a key leads in an object; `None` if it is a list and the key is no place in it.
    fn place(&self, object: &ObjId, key: &str) -> Option<Place> {
        match self.transaction.object_type(object).ok()? {
            ObjType::Map | ObjType::Table => Some(Place::Key(key.to_owned())),
            ObjType::List => {
                let at: usize = key.parse().ok()?;
                (at <= self.transaction.length(object)).then_some(Place::Element(at))
            }
            ObjType::Text => None,
        }
    }

    fn read(&self, object: &ObjId, place: &Place) -> Option<(automerge::Value<'_>, ObjId)> {
        match place {
            Place::Key(key) => self.transaction.get(object, key.as_str()).ok()?,
            Place::Element(at) => self.transaction.get(object, *at).ok()?,
        }
    }

    fn is_end(&self, object: &ObjId, place: &Place) -> bool {
        matches!(place, Place::Element(at) if *at == self.transaction.length(object))
    }

    fn make(
        &mut self,
        object: &ObjId,
        place: &Place,
        kind: ObjType,
    ) -> Result<ObjId, AutomergeError> {
        let end = self.is_end(object, place);
        match place {
            Place::Key(key) => self.transaction.put_object(object, key.as_str(), kind),
            Place::Element(at) if end => self.transaction.insert_object(object, *at, kind),
            Place::Element(at) => self.transaction.put_object(object, *at, kind),
        }
    }

    fn write(
        &mut self,
        object: &ObjId,
        place: &Place,
        value: &Value,
    ) -> Result<(), AutomergeError> {
        let scalar = match value {
            Value::Object(members) => {
                let child = self.make(object, place, ObjType::Map)?;
                return members.iter().try_for_each(|(key, value)| {
                    self.write(&child, &Place::Key(key.clone()), value)
                });
            }
            Value::Array(elements) => {
                let child = self.make(object, place, ObjType::List)?;
                return elements
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, value)| self.write(&child, &Place::Element(at), value));
            }
            Value::Null => ScalarValue::Null,
            Value::Bool(value) => ScalarValue::Boolean(*value),
            Value::String(text) => ScalarValue::Str(text.as_str().into()),
            Value::Number(number) => scalar(number),
        };
        let end = self.is_end(object, place);
        match place {
            Place::Key(key) => self.transaction.put(object, key.as_str(), scalar),
            Place::Element(at) if end => self.transaction.insert(object, *at, scalar),
            Place::Element(at) => self.transaction.put(object, *at, scalar),
        }
    }
}

/// Where in an object.
enum Place {
    Key(String),
    Element(usize),
}

fn scalar(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => ScalarValue::Int(value),
        (None, Some(value)) => ScalarValue::Uint(value),
        (None, None) => ScalarValue::F64(number.as_f64().unwrap_or_default()),
    }
}

/// Splits a path into its last key and those before it, if it is allowed.
fn checked<'p, 'k>(
    path: &'p [&'k str],
    below: usize,
) -> Result<(&'k str, &'p [&'k str]), AppError> {
    let wrong = || AppError::Path { path: path.join("/") };
    let keys = path.iter().all(|key| key_fits(key));
    match path.split_last() {
        Some((last, parents)) if keys && path.len() + below <= DEPTH_MAX => Ok((last, parents)),
        _ => Err(wrong()),
    }
}

/// How many levels of maps and lists a value has.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Whether every key of a value may stand in a path.
fn keys_fit(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().all(|(key, value)| key_fits(key) && keys_fit(value))
        }
        Value::Array(elements) => elements.iter().all(keys_fit),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn key_fits(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
}

fn nowhere(path: &[&str]) -> AppError {
    AppError::NoContainer { path: path.join("/") }
}

fn failed(_: AutomergeError) -> AppError {
    AppError::Failed
}

/// Reads an object as JSON. What is nested too deep is not shown.
pub(super) fn object(document: &impl ReadDoc, object: &ObjId, depth: usize) -> Value {
    let Ok(kind) = document.object_type(object) else { return Value::Null };
    if DEPTH_MAX < depth {
        return Value::Null;
    }
    match kind {
        ObjType::Text => Value::String(document.text(object).unwrap_or_default()),
        ObjType::List => {
            let elements = document.list_range(object, ..);
            let read = |at: usize| {
                let (found, child) = document.get(object, at).ok()??;
                Some(value(document, &found, &child, depth))
            };
            Value::Array((0..elements.count()).filter_map(read).collect())
        }
        ObjType::Map | ObjType::Table => {
            let keys: Vec<String> = document.keys(object).collect();
            let read = |key: String| {
                let (found, child) = document.get(object, key.as_str()).ok()??;
                let found = value(document, &found, &child, depth);
                Some((key, found))
            };
            Value::Object(keys.into_iter().filter_map(read).collect::<Map<_, _>>())
        }
    }
}

fn value(
    document: &impl ReadDoc,
    found: &automerge::Value<'_>,
    child: &ObjId,
    depth: usize,
) -> Value {
    match found.as_scalar() {
        None => object(document, child, depth + 1),
        Some(ScalarValue::Boolean(value)) => Value::Bool(*value),
        Some(ScalarValue::Str(text)) => Value::String(text.to_string()),
        Some(ScalarValue::Int(value) | ScalarValue::Timestamp(value)) => (*value).into(),
        Some(ScalarValue::Uint(value)) => (*value).into(),
        Some(ScalarValue::Counter(value)) => i64::from(value).into(),
        Some(ScalarValue::F64(value)) => (*value).into(),
        Some(ScalarValue::Bytes(bytes)) => data_encoding::BASE64.encode(bytes).into(),
        Some(ScalarValue::Null | ScalarValue::Unknown { .. }) => Value::Null,
    }
}
