use proptest::prelude::*;

use super::*;

fn java(id: u32, line: u32, generated: u32) -> String {
    format!(
        "com.shop.OrderFailed: order {id} failed\n\
         \tat com.shop.Orders.place(Orders.java:{line})\n\
         \tat com.shop.Orders$$EnhancerBySpringCGLIB$${generated:x}.place(<generated>)\n\
         \tat com.shop.Orders.lambda$all${generated}(Orders.java:{line})\n\
         \tat com.shop.Web$$Lambda/0x{generated:016x}.apply(Unknown Source)\n\
         \tat jdk.internal.reflect.GeneratedMethodAccessor{generated}.invoke(Unknown Source)\n\
         \tat org.springframework.web.Dispatcher.run(Dispatcher.java:{line}) ~[spring-web.jar:6]\n\
         \tSuppressed: java.io.IOException: close {id}\n\
         \t\tat com.shop.Other.close(Other.java:{line})\n\
         \tCaused by: java.io.IOException: inner\n\
         \t\t... 3 more\n\
         Caused by: java.sql.SQLException: no row {id}\n\
         \tat org.postgresql.Driver.query(Driver.java:{line})\n\
         \tat com.shop.Stock.read(Stock.java:{line})\n\
         \t... 12 more\n"
    )
}

#[test]
fn types_frames_and_roots_of_each_language() {
    let java = java(7, 41, 3);
    #[rustfmt::skip]
    let cases = [
        ("java", "com.shop.OrderFailed", java.as_str(), "java.sql.SQLException", Some("com.shop.Stock.read(Stock.java:41)")),
        ("java, one line", "java.lang.OutOfMemoryError", "java.lang.OutOfMemoryError: Java heap space\n", "java.lang.OutOfMemoryError", None),
        ("java, only libraries", "a.B", "a.B\n\tat java.base/java.util.List.get(List.java:3)\n", "a.B", Some("java.base/java.util.List.get(List.java:3)")),
        ("java, an example below a library", "a.B", "a.B: x\n\tat org.springframework.web.A.b(A.java:1)\n\tat org.springframework.samples.petclinic.C.d(C.java:2)\n",
         "a.B", Some("org.springframework.samples.petclinic.C.d(C.java:2)")),
        ("no stack trace", "ValueError", "", "ValueError", None),
        ("a sentence", "ValueError", "something went wrong\nand more", "ValueError", None),
        ("python", "OrderError",
         "Traceback (most recent call last):\n  File \"/app/stock.py\", line 3, in read\n    x\nKeyError: 'a'\n\n\
          The above exception was the direct cause of the following exception:\n\n\
          Traceback (most recent call last):\n  File \"/usr/lib/python3.12/http/server.py\", line 9, in run\n    x\n  \
          File \"/app/orders.py\", line 8, in place\n    x\nshop.OrderError: failed\n",
         "KeyError", Some("File \"/app/stock.py\", line 3, in read")),
        ("node", "TypeError",
         "TypeError: x is undefined\n    at node:internal/process:1:2\n    at Cart.total (/app/cart.js:12:7)\n    at /app/node_modules/express/index.js:1:1\n",
         "TypeError", Some("Cart.total (/app/cart.js:12:7)")),
        ("go", "*errors.errorString",
         "goroutine 7 [running]:\nruntime/debug.Stack()\n\t/usr/local/go/src/runtime/debug/stack.go:24 +0x5e\nmain.place(0xc00001)\n\t/src/main.go:10 +0x1d\n",
         "*errors.errorString", Some("main.place")),
    ];
    for (name, exception_type, stacktrace, root_type, first_frame) in cases {
        let analysis = analyse(exception_type, None, Some(stacktrace));
        assert_eq!(analysis.root_type, root_type, "{name}");
        assert_eq!(analysis.first_frame.as_deref(), first_frame, "{name}");
        assert_eq!(analysis.fingerprint.len(), 32, "{name}");
    }
}

/// Guarantees: another place, type or cause is another bug; the message matters only where there are no frames.
#[test]
fn what_makes_another_fingerprint() {
    let print = |ty: &str, message: &str, stack: &str| analyse(ty, Some(message), Some(stack)).fingerprint;
    let stack = java(7, 41, 3);
    let base = print("com.shop.OrderFailed", "order 7 failed", &stack);
    assert_eq!(base, print("java.sql.SQLException", "no row", &stack), "the trace knows the types");
    assert_ne!(base, print("com.shop.OrderFailed", "", &stack.replace("Stock.read", "Stock.write")));
    assert_ne!(
        base,
        print("com.shop.OrderFailed", "", &stack.replace("java.sql.SQLException", "java.io.EOFException"))
    );
    assert_eq!(
        base,
        print("com.shop.OrderFailed", "", &stack.replace("Driver.query", "Driver.execute")),
        "not own code"
    );
    assert_ne!(print("E", "no stock", ""), print("E", "no money", ""));
    assert_eq!(print("E", "no stock of 7", ""), print("E", "no stock of 12", ""));
    assert_ne!(print("E", "x", ""), print("F", "x", ""));
}

#[test]
fn generated_names_are_made_equal() {
    #[rustfmt::skip]
    let cases = [
        ("a.B$$Lambda$14/0x0000000800.apply",        "a.B$$Lambda.apply"),
        ("a.B$$Lambda/0x00007f.apply",               "a.B$$Lambda.apply"),
        ("a.B$$EnhancerBySpringCGLIB$$1a2b.run",     "a.B.run"),
        ("a.B$$SpringCGLIB$$0.run",                  "a.B.run"),
        ("com.sun.proxy.$Proxy12.find",              "com.sun.proxy.$Proxy.find"),
        ("sun.GeneratedMethodAccessor12.invoke",     "sun.GeneratedMethodAccessor.invoke"),
        ("a.B.lambda$place$3",                       "a.B.lambda$place"),
        ("a.Outer$Inner.run",                        "a.Outer$Inner.run"),
    ];
    for (name, expected) in cases {
        assert_eq!(stack::normalise(name), expected);
    }
}

proptest! {
    /// Guarantees: ids, line numbers and generated names never change a fingerprint.
    #[test]
    fn fingerprints_survive_what_varies(id: u32, line in 1u32..5000, generated: u32) {
        let expected = analyse("x", None, Some(&java(1, 1, 1)));
        let found = analyse("x", None, Some(&java(id, line, generated)));
        prop_assert_eq!(&found.fingerprint, &expected.fingerprint);
        prop_assert_eq!(&found.root_type, &expected.root_type);
        let message = format!("row {id} of {line} by u{generated}@example.com");
        prop_assert_eq!(
            analyse("E", Some(&message), None).fingerprint,
            analyse("E", Some("row 1 of 1 by u1@example.com"), None).fingerprint
        );
    }

    /// Guarantees: any text has a fingerprint, without a panic.
    #[test]
    fn any_text_is_analysed(ty in ".*", message in ".*", stack in "(?s).{0,300}", lines in proptest::collection::vec(
        "(\tat |Caused by: |  File \"|goroutine |Traceback \\(most recent call last\\):|\tSuppressed: )?[a-z.$/0-9:()\" ]{0,40}", 0..20)) {
        analyse(&ty, Some(&message), Some(&stack));
        analyse(&ty, Some(&message), Some(&lines.join("\n")));
    }
}
