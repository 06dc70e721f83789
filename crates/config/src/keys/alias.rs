//! Keys of other tools.

/// Words that other tools use for something that has another name here.
pub(crate) static ALIASES: &[(&str, &str)] = &[
    ("image", "there are no images here: what runs is a directory of the project, with command"),
    ("cmd", "the key is command"),
    ("run", "the key is command"),
    ("entrypoint", "the key is command"),
    ("environment", "variables go into [vars] or env; environments are tables [env.NAME]"),
    ("environments", "environments are tables [env.NAME]"),
    ("envs", "environments are tables [env.NAME]"),
    ("ports", "the key is port, one number"),
    ("depends_on", "the key is after"),
    ("healthcheck", "the keys are ready and live"),
    ("health", "the keys are ready and live"),
    ("scale", "the key is replicas"),
    ("instances", "the key is replicas"),
    ("path", "the key is route"),
    ("domain", "the key is host, of an environment"),
    ("secrets", "a secret is the value of a variable: { secret = \"name\" }"),
    ("volumes", "a directory that outlives releases is { ref = \"data.dir\" }"),
    ("memory", "the key is limits = { memory = \"512M\" }"),
    ("cpu", "the key is limits = { cpu = 1.0 }"),
    ("cwd", "the key is workdir"),
    ("services", "each service is a table [service.NAME]"),
    ("name", "the key is project"),
    ("type", "a service is what it has: command, static or uses"),
];
