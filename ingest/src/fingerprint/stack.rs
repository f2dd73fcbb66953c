//! Stack traces as runtimes print them: Java in depth; Python, Node and Go as far as types, functions and whose code it is.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

/// More frames than these of one trace add nothing but time.
pub(super) const MAX_FRAMES: usize = 300;

/// A parsed stack trace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stack<'a> {
    /// Types in the trace, outermost first, the root cause last.
    pub(super) types: Vec<&'a str>,
    /// Frames, the root cause's first, innermost call first.
    pub(super) frames: Vec<Frame<'a>>,
}

/// One call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Module and function; no line number.
    pub(super) function: Cow<'a, str>,
    /// As the trace has it.
    pub(super) text: &'a str,
    /// Neither the runtime's nor a well-known library's.
    pub(super) is_own: bool,
}

/// Packages that are somebody else's code.
const JAVA_LIBRARIES: &[&str] = &[
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "com.sun.",
    "jakarta.",
    "kotlin.",
    "kotlinx.",
    "scala.",
    "groovy.",
    "akka.",
    "reactor.",
    "rx.",
    "io.netty.",
    "io.reactivex.",
    "io.grpc.",
    "io.micrometer.",
    "io.opentelemetry.",
    "io.undertow.",
    "io.vertx.",
    "io.quarkus.",
    "io.micronaut.",
    "io.lettuce.",
    "io.github.resilience4j.",
    "org.springframework.",
    "org.apache.",
    "org.hibernate.",
    "org.eclipse.",
    "org.jboss.",
    "org.postgresql.",
    "org.mariadb.",
    "org.hsqldb.",
    "org.h2.",
    "org.slf4j.",
    "org.codehaus.",
    "org.aspectj.",
    "org.mybatis.",
    "org.jooq.",
    "org.quartz.",
    "org.thymeleaf.",
    "org.junit.",
    "org.glassfish.",
    "org.reactivestreams.",
    "oracle.",
    "com.mysql.",
    "com.zaxxer.",
    "com.fasterxml.",
    "com.google.common.",
    "com.google.gson.",
    "com.google.inject.",
    "com.github.benmanes.caffeine.",
    "com.mongodb.",
    "com.netflix.",
    "com.microsoft.sqlserver.",
    "ch.qos.logback.",
    "feign.",
    "redis.clients.",
    "okhttp3.",
    "okio.",
    "retrofit2.",
    "net.bytebuddy.",
    "net.sf.",
    "brave.",
    "zipkin2.",
];

/// Example applications that live below a library's name.
const NOT_LIBRARIES: &[&str] = &["org.springframework.samples.", "org.apache.samples."];

impl<'a> Stack<'a> {
    pub(super) fn parse(text: &'a str) -> Stack<'a> {
        let mut stack = if text.contains("Traceback (most recent call last)") {
            python(text)
        } else if text.starts_with("goroutine ") || text.contains("\ngoroutine ") {
            go(text)
        } else {
            java_or_node(text)
        };
        stack.frames.truncate(MAX_FRAMES);
        stack
    }
}

/// Both indent frames and begin them with `at`; Node's locations have a column.
fn java_or_node(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    // Where the section of each type begins among the frames.
    let mut sections = vec![0];
    let mut is_suppressed = false;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some(call) = trimmed.strip_prefix("at ") {
            if !is_suppressed && stack.frames.len() < MAX_FRAMES {
                stack.frames.extend(java_or_node_frame(call.trim_end()));
            }
        } else if trimmed.starts_with("Suppressed: ") {
            is_suppressed = true;
        } else if let Some(cause) = trimmed.strip_prefix("Caused by: ").or(trimmed.strip_prefix("[cause]: ")) {
            // An indented cause of Java's is the cause of something suppressed.
            if is_suppressed && line.starts_with('\t') {
                continue;
            }
            is_suppressed = false;
            if let Some(name) = type_of(cause) {
                stack.types.push(name);
                sections.push(stack.frames.len());
            }
        } else if number == 0 {
            stack.types.extend(type_of(trimmed));
        }
    }
    // The root cause's section first, each section in its own order.
    let mut frames = Vec::with_capacity(stack.frames.len());
    for start in sections.into_iter().rev() {
        frames.extend(stack.frames.drain(start..));
    }
    Stack { types: stack.types, frames }
}

fn java_or_node_frame(call: &str) -> Option<Frame<'_>> {
    let (function, location) = match call.split_once('(') {
        Some((function, rest)) => (function.trim_end(), rest.split(')').next().unwrap_or_default()),
        None => ("", call),
    };
    if let Some(path) = without_line_and_column(location) {
        let function = function.strip_prefix("async ").unwrap_or(function);
        let is_own = !path.contains("node_modules/") && !path.starts_with("node:") && !path.starts_with("internal/");
        return Some(Frame { function: Cow::Owned(format!("{function} {path}")), text: call, is_own });
    }
    if function.is_empty() {
        return None;
    }
    // `java.base/java.util.List.get`, `app//com.shop.Cart.total`; but not `Cart$$Lambda/0x01.apply`.
    let function = match function.split_once('/') {
        Some((module, rest)) if !module.contains('$') => {
            rest.rsplit_once('/').filter(|(head, _)| !head.contains('$')).map_or(rest, |(_, name)| name)
        }
        _ => function,
    };
    let starts_with = |packages: &[&str]| packages.iter().any(|package| function.starts_with(package));
    let is_generated = function.starts_with("$Proxy") || function.starts_with("jdk.proxy");
    let is_own = !is_generated && (!starts_with(JAVA_LIBRARIES) || starts_with(NOT_LIBRARIES));
    let end = call.find(')').map_or(call.len(), |position| position + 1);
    Some(Frame { function: Cow::Borrowed(function), text: &call[..end], is_own })
}

/// `/app/cart.js` of `/app/cart.js:12:7`.
fn without_line_and_column(location: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, column) = location.rsplit_once(':')?;
    let (path, line) = rest.rsplit_once(':')?;
    (is_number(column) && is_number(line)).then_some(path)
}

/// The type of `java.lang.IllegalStateException: no stock`, if the line begins with one.
fn type_of(header: &str) -> Option<&str> {
    let header = match header.strip_prefix("Exception in thread \"") {
        Some(rest) => rest.split_once("\" ").map_or(rest, |(_, header)| header),
        None => header,
    };
    let name = header.split([':', ' ', '\r']).next().unwrap_or_default();
    let is_name = name.starts_with(|first: char| first.is_alphabetic())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '$' | '/' | '-'));
    // A type is followed by a colon or by nothing; a sentence is not.
    let is_alone = matches!(header[name.len()..].trim_end().chars().next(), None | Some(':'));
    (is_name && is_alone).then_some(name)
}

/// Python prints the root cause first, and the innermost call last.
fn python(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    let mut section = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("File \"") {
            if let Some((path, call)) = rest.split_once("\", line ") {
                let function = call.split_once(", in ").map_or("", |(_, function)| function.trim_end());
                let is_own = !["site-packages/", "dist-packages/", "/lib/python", "<frozen "]
                    .iter()
                    .any(|foreign| path.contains(foreign));
                let function = Cow::Owned(format!("{path} {function}"));
                section.push(Frame { function, text: line.trim(), is_own });
            }
        } else if !line.starts_with([' ', '\t'])
            && !section.is_empty()
            && let Some(name) = type_of(line)
        {
            stack.types.push(name);
            stack.frames.extend(section.drain(..).rev());
        }
    }
    stack.frames.extend(section.into_iter().rev());
    stack.types.reverse();
    stack
}

/// Function lines are followed by an indented line with file, line and offset. There are no types.
fn go(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    let mut lines = text.lines().peekable();
    let mut goroutines = 0;
    while let Some(line) = lines.next() {
        goroutines += u32::from(line.starts_with("goroutine "));
        // Others than the first merely happened to run.
        if goroutines > 1 {
            break;
        }
        let Some(place) = lines.peek().and_then(|next| next.strip_prefix('\t')) else { continue };
        if line.starts_with("created by ") {
            continue;
        }
        let function = line.rsplit_once('(').map_or(line, |(function, _)| function);
        let is_library = ["/pkg/mod/", "/vendor/", "/go/src/runtime/", "/usr/local/go/src/", "/usr/lib/go"];
        let is_own = !is_library.iter().any(|foreign| place.contains(foreign)) && !function.starts_with("runtime");
        stack.frames.push(Frame { function: Cow::Borrowed(function), text: function, is_own });
    }
    stack
}

/// Names that runtimes and libraries make up, and what stays of them.
static GENERATED: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
    [
        // Spring's and Guice's subclasses stand for the class itself.
        (r"\$\$(?:SpringCGLIB|Enhancer|FastClass)[^.(]*", ""),
        (r"\$\$Lambda[^.(]*", "$$$$Lambda"),
        (r"\blambda\$(\w+?)\$\d+", "lambda$$$1"),
        (r"(\$Proxy|Generated(?:Method|Constructor)Accessor|HibernateProxy)\$*\w*", "$1"),
        (r"/0x[0-9a-f]+", ""),
    ]
    .map(|(pattern, replacement)| {
        (Regex::new(pattern).expect("the patterns are constant, and tests run them"), replacement)
    })
});

/// A name without what changes from one process to the next.
pub(super) fn normalise(name: &str) -> Cow<'_, str> {
    if !name.contains('$') && !name.contains("Generated") && !name.contains("/0x") {
        return Cow::Borrowed(name);
    }
    GENERATED.iter().fold(Cow::Borrowed(name), |name, (pattern, replacement)| {
        Cow::Owned(pattern.replace_all(&name, *replacement).into_owned())
    })
}
