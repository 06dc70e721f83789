//! The codes of diagnostics: stable, because scripts and the reference name them.

macro_rules! codes {
    ($($name:ident = $code:literal, $what:literal;)*) => {
        $(pub(crate) const $name: &str = $code;)*

        /// Every code with what it means, for the reference.
        pub const CODES: &[(&str, &str)] = &[$(($code, $what)),*];
    };
}

codes! {
    SYNTAX = "config/syntax", "the file is not TOML";
    TOO_LARGE = "config/too-large", "the file is over 1 MiB";
    TOO_DEEP = "config/too-deep", "values are nested deeper than any key";
    TOO_MANY = "config/too-many", "a list or a table has more entries than are accepted";
    MORE = "config/more", "there are more problems than are shown";
    VERSION = "config/version", "the file is of a version that this program does not know";
    UNKNOWN_KEY = "config/unknown-key", "a key that does not exist";
    MISSING_KEY = "config/missing-key", "a key that is required is not there";
    WRONG_TYPE = "config/wrong-type", "a value is not of the type that the key takes";
    BAD_VALUE = "config/bad-value", "a value is not one of those that the key takes";
    BAD_NAME = "config/bad-name", "a name has characters or a length that names may not have";
    OUT_OF_RANGE = "config/out-of-range", "a number is too small or too large";
    COMMAND = "config/command", "a command is empty or needs a shell";
    UNKNOWN_SERVICE = "config/unknown-service", "a service that does not exist is named";
    UNKNOWN_ENVIRONMENT = "config/unknown-environment", "an environment that does not exist is named";
    UNKNOWN_REFERENCE = "config/unknown-reference", "a `{ ref = … }` names nothing that exists";
    CYCLE = "config/cycle", "`after` or `extends` leads back to where it started";
    ROUTE_TAKEN = "config/route-taken", "two services have the same route";
    NO_SERVICES = "config/no-services", "the project has no service";
    NOTHING_TO_RUN = "config/nothing-to-run", "a service has neither command nor static nor uses";
    CONFLICT = "config/conflict", "two keys exclude each other";
    ROUTE_NEEDS_PORT = "config/route-needs-port", "a service with a route has no port";
    WEIGHTS = "config/weights", "the weights of the steps do not rise from 1 to 100";
    STRATEGY_OPTION = "config/strategy-option", "an option belongs to another strategy";
    UNKNOWN_CHANNEL = "config/unknown-channel", "a channel that does not exist is named";
    UNROUTED = "config/unrouted", "some alerts are told to nobody";
    UNREACHABLE = "config/unreachable", "static files that no request can reach";
    PORT_VARIABLE = "config/port-variable", "PORT is set by hand, so that every instance would take the same port";
    PLAIN_SECRET = "config/plain-secret", "a value that looks like a secret stands in the file";
    NO_DIRECTORY = "config/no-directory", "a directory that the file names does not exist";
    RULE_FILE = "config/rule-file", "a rule file is not there, cannot be read or is too large";
    NO_COMMAND = "config/no-command", "the program of a command does not exist or cannot be executed";
    NOT_IN_EFFECT = "config/not-in-effect", "a setting is understood and kept, but this version does not act on it";
    MISSING_SECRET = "config/missing-secret", "a secret has no value in this environment";
    MISSING_ARTIFACT = "config/missing-artifact", "a directory of the release was not captured";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_of_one_form() {
        let mut seen = std::collections::BTreeSet::new();
        for (code, what) in CODES {
            assert!(seen.insert(code), "{code} twice");
            assert!(code.starts_with("config/") && !what.is_empty());
        }
    }
}
