//! Whether an object is what it was: of what was set all is still set; what a newer release has added is its own affair.

use kit::record::{Decided, ObjectKey, Reached};
use serde_json::{Map, Value};

/// How much of a value is shown.
const SHOWN: usize = 100;
/// No object has as many conditions.
const CONDITIONS: usize = 50;

/// All of an object but for what the API server and controllers write.
pub(super) fn body(object: &Value) -> Value {
    let own = |(name, _): &(&String, &Value)| !["apiVersion", "kind", "metadata", "status"].contains(&name.as_str());
    let members = object.as_object().into_iter().flatten().filter(own);
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// The first of what was set that is not set so any more, in words.
pub(super) fn lost(was: &Value, now: &Value) -> Option<String> {
    difference(was, Some(now), "")
}

fn difference(was: &Value, now: Option<&Value>, path: &str) -> Option<String> {
    match (was, now) {
        // Nothing was set: some write that down, and some leave it out.
        (Value::Null, _) => None,
        (Value::Object(was), None | Some(Value::Null)) if was.is_empty() => None,
        (Value::Array(was), None | Some(Value::Null)) if was.is_empty() => None,
        (Value::Object(was), Some(Value::Object(now))) => was.iter().find_map(|(name, was)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            difference(was, now.get(name), &path)
        }),
        // One more member of a list is another list: a step, an argument.
        (Value::Array(was), Some(Value::Array(now))) if was.len() == now.len() => {
            let pairs = was.iter().zip(now).enumerate();
            pairs.into_iter().find_map(|(index, (was, now))| difference(was, Some(now), &format!("{path}[{index}]")))
        }
        (Value::Array(was), Some(Value::Array(now))) => {
            Some(format!("{}: had {} members, and has {}", cut(path), was.len(), now.len()))
        }
        // 1 and 1.0.
        (Value::Number(was), Some(Value::Number(now)))
            if was.is_f64() != now.is_f64() && was.as_f64() == now.as_f64() =>
        {
            None
        }
        (was, Some(now)) if was == now => None,
        (was, None | Some(Value::Null)) => Some(format!("{}: was {}, and is not set any more", cut(path), show(was))),
        (was, Some(now)) => Some(format!("{}: was {}, and is {}", cut(path), show(was), show(now))),
    }
}

fn show(value: &Value) -> String {
    cut(&value.to_string())
}

/// So much of a text as a line may hold.
pub(super) fn cut(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// How far an object has come by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet there, in words.
    Open(String),
    /// There.
    Reached,
    /// At another end, in words.
    Ended(String),
}

/// How far an object has come to `what` (see [`Reached::what`]).
pub(super) fn state(object: &Value, what: &str) -> State {
    let status = &object["status"];
    let text = |value: &Value| value.as_str().map(cut).unwrap_or_default();
    if let Some(wanted) = what.strip_prefix("phase=") {
        let said = |phase: &str| format!("phase {phase}: {}", text(&status["message"]));
        return match status["phase"].as_str() {
            Some(phase) if phase == wanted => State::Reached,
            Some("Failed") => State::Ended(said("Failed")),
            Some(phase) => State::Open(said(&cut(phase))),
            None => State::Open("it has no phase".into()),
        };
    }
    let Some(found) = conditions(object).find(|condition| condition["type"] == what) else {
        return State::Open(format!("it has no condition {what}"));
    };
    let said = || {
        let more = ["reason", "message"].map(|name| text(&found[name])).into_iter().filter(|text| !text.is_empty());
        more.fold(format!("{what} is {}", text(&found["status"])), |said, more| format!("{said}: {more}"))
    };
    match found["status"].as_str() {
        Some("True") => State::Reached,
        // Others may become true again; this one is an end (knative.dev/pkg/apis, ConditionSucceeded).
        Some("False") if what == "Succeeded" => State::Ended(said()),
        _ => State::Open(said()),
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten().take(CONDITIONS)
}

/// What an object has come to, for later; `manifest` is what made it.
pub(super) fn reached(object: &Value, what: &str, manifest: &Value) -> Reached {
    let text = |value: &Value| value.as_str().map(cut);
    let decided = conditions(object).filter_map(|condition| {
        let status = condition["status"].as_str().filter(|status| ["True", "False"].contains(status))?;
        Some(Decided { kind: text(&condition["type"])?, status: status.into(), reason: text(&condition["reason"]) })
    });
    let status = &object["status"];
    Reached {
        what: what.to_owned(),
        conditions: decided.collect(),
        phase: text(&status["phase"]),
        completion_time: text(&status["completionTime"]),
        manifest: manifest.clone(),
    }
}

/// What an object says no more of how it had ended, in words.
pub(super) fn forgotten(was: &Reached, object: &Value) -> Option<String> {
    let now = reached(object, &was.what, &Value::Null);
    for before in &was.conditions {
        let same = now.conditions.iter().find(|after| after.kind == before.kind);
        if same.is_none_or(|after| after.status != before.status) {
            let is = same.map_or("is not decided any more".into(), |after| format!("is {}", after.status));
            return Some(format!("condition {}: was {}, and {is}", before.kind, before.status));
        }
    }
    for (name, before, after) in
        [("phase", &was.phase, &now.phase), ("completionTime", &was.completion_time, &now.completion_time)]
    {
        if let Some(before) = before.as_ref().filter(|_| before != after) {
            let is = after.as_ref().map_or("is not set any more".into(), |after| format!("is {after}"));
            return Some(format!("status.{name}: was {before}, and {is}"));
        }
    }
    None
}

/// The key's API group.
pub(super) fn group(key: &ObjectKey) -> &str {
    key.api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_set_is_still_set() {
        let was = json!({"spec": {"steps": [{"image": "a", "args": ["x"]}], "n": 1, "off": false, "no": null}});
        for now in [
            was.clone(),
            json!({"spec": {"steps": [{"image": "a", "args": ["x"], "new": 1}], "n": 1.0, "off": false, "more": {}}}),
        ] {
            assert_eq!(lost(&was, &now), None, "{now}");
        }
        let spec = |change: fn(&mut Value)| {
            let mut now = was.clone();
            change(&mut now["spec"]);
            lost(&was, &now).unwrap()
        };
        assert_eq!(spec(|s| s["steps"][0]["image"] = json!("b")), r#"spec.steps[0].image: was "a", and is "b""#);
        assert_eq!(spec(|s| s["steps"] = json!([])), "spec.steps: had 1 members, and has 0");
        assert_eq!(spec(|s| s["steps"][0]["args"] = json!(["x", "y"])), "spec.steps[0].args: had 1 members, and has 2");
        assert_eq!(spec(|s| s["off"] = Value::Null), "spec.off: was false, and is not set any more");
        assert_eq!(spec(|s| *s = json!("text")).split(',').next_back().unwrap(), r#" and is "text""#);
        assert_eq!(spec(|s| s["n"] = json!("1")), r#"spec.n: was 1, and is "1""#);
        assert_eq!(lost(&json!({"a": {}, "b": []}), &json!({})), None, "nothing was set");
        assert_eq!(lost(&json!({"a": {"b": {}}}), &json!({})).unwrap(), "a: was {\"b\":{}}, and is not set any more");
        assert_eq!(lost(&json!({}), &Value::Null), None);
    }

    #[test]
    fn values_of_any_kind_and_size_fit_on_a_line() {
        let long = "x\u{1b}[2J\n".repeat(10_000);
        let said = lost(&json!({ long.clone(): long.clone() }), &json!({ long.clone(): 1 })).unwrap();
        assert!(said.chars().count() < 3 * SHOWN && !said.chars().any(char::is_control), "{said}");
        let deep = (0..100).fold(json!(1), |inner, _| json!([{ "a": inner }]));
        let other = (0..100).fold(json!(2), |inner, _| json!([{ "a": inner }]));
        assert!(lost(&deep, &other).unwrap().ends_with("was 1, and is 2"));
        for odd in [json!(null), json!([]), json!("x"), json!({"status": 1}), json!({"status": {"conditions": {}}})] {
            assert_eq!(state(&odd, "Succeeded"), State::Open("it has no condition Succeeded".into()), "{odd}");
            assert_eq!(state(&odd, "phase=Done"), State::Open("it has no phase".into()), "{odd}");
            assert_eq!(body(&odd), json!({}), "{odd}");
            assert!(reached(&odd, "Ready", &odd).conditions.is_empty());
        }
    }

    fn with(kind: &str, status: &str) -> Value {
        json!({"status": {"completionTime": "t1", "conditions": [
            {"type": kind, "status": status, "reason": "R", "message": "m"}, {"type": "Open", "status": "Unknown"},
        ]}})
    }

    #[test]
    fn how_far_an_object_has_come() {
        assert_eq!(state(&with("Succeeded", "True"), "Succeeded"), State::Reached);
        assert_eq!(state(&with("Succeeded", "False"), "Succeeded"), State::Ended("Succeeded is False: R: m".into()));
        assert_eq!(state(&with("Ready", "False"), "Ready"), State::Open("Ready is False: R: m".into()));
        assert_eq!(state(&with("Ready", "Unknown"), "Ready"), State::Open("Ready is Unknown: R: m".into()));
        let phase = |phase: &str| json!({"status": {"phase": phase, "message": "m"}});
        assert_eq!(state(&phase("Done"), "phase=Done"), State::Reached);
        assert_eq!(state(&phase("Failed"), "phase=Done"), State::Ended("phase Failed: m".into()));
        assert_eq!(state(&phase("Running"), "phase=Done"), State::Open("phase Running: m".into()));
    }

    #[test]
    fn an_end_is_not_forgotten() {
        let was = reached(&with("Succeeded", "True"), "Succeeded", &json!({}));
        assert_eq!(was.conditions.len(), 1, "what is open is not kept");
        assert_eq!(forgotten(&was, &with("Succeeded", "True")), None);
        let said = |now: Value| forgotten(&was, &now).unwrap();
        assert_eq!(said(with("Succeeded", "False")), "condition Succeeded: was True, and is False");
        assert_eq!(said(json!({})), "condition Succeeded: was True, and is not decided any more");
        let mut again = with("Succeeded", "True");
        again["status"]["completionTime"] = json!("t2");
        assert_eq!(said(again), "status.completionTime: was t1, and is t2");
        let done = reached(&json!({"status": {"phase": "Done"}}), "phase=Done", &json!({}));
        assert_eq!(
            forgotten(&done, &json!({"status": {}})).unwrap(),
            "status.phase: was Done, and is not set any more"
        );
    }
}
