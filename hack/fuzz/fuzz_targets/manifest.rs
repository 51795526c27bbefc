//! Any text as a manifest: refused with errors that name their place, or read into objects that
//! are written and read back as themselves; in time and memory bounded by the text's length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_agent::model::{LoadError, Resource, load};

fuzz_target!(|text: &str| {
    match load(text) {
        Ok(objects) => {
            // Aliases multiply what they name, up to a bound.
            let bound = 16 * (64 * 1024 + 64 * text.len());
            let written: usize = objects.iter().map(|object| object.to_json().len()).sum();
            assert!(written <= bound, "{} bytes became {written}", text.len());
            objects.iter().for_each(survives);
        }
        Err(errors) => places(text, &errors),
    }
    // As the store reads what it kept.
    if let Ok(object) = Resource::from_json(text) {
        survives(&object);
    }
});

/// Writing and reading gives the same object, before and after it is admitted.
fn survives(object: &Resource) {
    assert_eq!(Resource::from_json(&object.to_json()).as_ref(), Ok(object));
    match object.clone().admit() {
        Ok(admitted) => {
            assert_eq!(Resource::from_json(&admitted.to_json()).as_ref(), Ok(&admitted));
            assert_eq!(
                admitted.clone().admit().as_ref(),
                Ok(&admitted),
                "what was admitted is again, unchanged"
            );
        }
        Err(errors) => assert!(errors.iter().all(|error| !error.to_string().is_empty())),
    }
}

fn places(text: &str, errors: &[LoadError]) {
    assert!(!errors.is_empty());
    // A hundred, and what the last object adds.
    // YAML ends lines at these.
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for error in errors {
        assert!(error.document >= 1, "{error}");
        assert!((1..=lines + 1).contains(&error.line), "line {} of {lines}: {error}", error.line);
        assert!(!error.message.is_empty());
    }
}
