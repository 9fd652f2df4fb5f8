//! Reading a page of a list item by item, so that a page is never in memory as values. Pure.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// Calls `each` with every item of a list; returns the token of the next page, if there is one.
///
/// # Errors
/// If the text is no list.
pub(crate) fn read(text: &str, mut each: impl FnMut(Value)) -> serde_json::Result<Option<String>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let metadata = List(&mut each).deserialize(&mut reader)?;
    reader.end()?;
    Ok(metadata.next.filter(|next| !next.is_empty()))
}

struct List<'a, F>(&'a mut F);

impl<'de, F: FnMut(Value)> DeserializeSeed<'de> for List<'_, F> {
    type Value = Metadata;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Metadata, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Value)> Visitor<'de> for List<'_, F> {
    type Value = Metadata;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of the API server")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::default();
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => metadata = map.next_value::<Option<Metadata>>()?.unwrap_or_default(),
                "items" => map.next_value_seed(Items(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(metadata)
    }
}

struct Items<'a, F>(&'a mut F);

impl<'de, F: FnMut(Value)> DeserializeSeed<'de> for Items<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Value)> Visitor<'de> for Items<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the items of a list")
    }

    // An empty list of some servers.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> serde_json::Result<(Vec<Value>, Option<String>)> {
        let mut items = Vec::new();
        let next = read(text, |item| items.push(item))?;
        Ok((items, next))
    }

    #[test]
    fn items_and_the_next_page_in_any_order() {
        let (items, next) = all(r#"{"kind":"XList","items":[{"a":1},2],"metadata":{"continue":"c","x":[]}}"#).unwrap();
        assert_eq!((items.len(), next.as_deref()), (2, Some("c")));
        for last in [r#"{"metadata":{"continue":""},"items":null}"#, r#"{"metadata":null}"#, "{}"] {
            assert_eq!(all(last).unwrap(), (vec![], None), "{last}");
        }
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for text in ["", "[]", "{\"items\": 7}", "{\"items\": [1", "{} {}", "{\"metadata\": \"x\"}"] {
            assert!(all(text).is_err(), "{text}");
        }
    }
}
