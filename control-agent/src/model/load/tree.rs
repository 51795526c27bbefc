//! Any document into a tree of values, within bounds.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What is left to spend. YAML aliases multiply what they name, so the size of the text bounds
/// nothing: each value costs [`VALUE_COST`] plus its bytes.
pub(super) struct Budget(Cell<usize>);

const VALUE_COST: usize = 32;

impl Budget {
    /// Enough for any text of `bytes` without aliases, and for modest use of them.
    pub(super) fn for_input(bytes: usize) -> Self {
        Self(Cell::new((64 * 1024 + bytes.saturating_mul(2 * VALUE_COST)).min(4 * super::MAX_INPUT)))
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.0.get().checked_sub(VALUE_COST + bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom("too many values, aliases counted wherever they stand; split the input")),
        }
    }
}

/// Reads a value. Keys with null values are dropped, as Kubernetes does; a key given twice is an
/// error.
pub(super) struct Tree<'b>(pub(super) &'b Budget);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML or JSON without tags")
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Bool(b))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Number(n.into()))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Number(n.into()))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Value, E> {
        self.0.spend(0)?;
        Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom(format!("{n} is not a finite number")))
    }

    fn visit_str<E: Error>(self, s: &str) -> Result<Value, E> {
        self.0.spend(s.len())?;
        Ok(Value::String(s.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
        self.deserialize(de)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Tree(self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut fields = Map::new();
        // A null is absence, but it still uses up its key.
        let mut absent = BTreeSet::new();
        while let Some(key) = map.next_key_seed(Tree(self.0))? {
            let key = match key {
                Value::String(key) => key,
                Value::Number(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
                _ => return Err(A::Error::custom("a key must be a string")),
            };
            if fields.contains_key(&key) || absent.contains(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is given twice; give it once")));
            }
            match map.next_value_seed(Tree(self.0))? {
                Value::Null => {
                    absent.insert(key);
                }
                value => {
                    fields.insert(key, value);
                }
            }
        }
        Ok(Value::Object(fields))
    }
}
