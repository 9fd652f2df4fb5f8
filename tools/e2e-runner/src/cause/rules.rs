//! What lines of a test's output mean, as data: the strongest first.
//!
//! Each rule has examples that must fit, and `NONE` has lines that none may fit. A failure without any
//! of these lines is the component's, if its test says why, and otherwise unclassified.

use kit::Cause;

/// Lines that fit the pattern mean this cause.
pub struct Rule {
    /// The cause.
    pub cause: Cause,
    /// For one line, without its end.
    pub pattern: &'static str,
    /// Words that make a line mean something else.
    pub except: &'static [&'static str],
    /// Whether it means that also where a failed test prints the state of all its objects: there, words
    /// of scripts and of specs stand beside those of events and conditions.
    pub in_dumps: bool,
    /// Whether it means that in the output of unit tests as well, which name much of what a cluster says: as values that
    /// they want, and as what a stand-in for it is to answer.
    pub in_units: bool,
    /// Lines as they were seen.
    pub examples: &'static [&'static str],
}

/// All rules: where several fit, the first decides.
pub const RULES: &[Rule] = &[
    Rule {
        cause: Cause::ImageWrongArch,
        pattern: r"exec format error",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &["standard_init_linux.go:228: exec user process caused: exec format error"],
    },
    Rule {
        cause: Cause::ImageMissingPlatform,
        pattern: r"no match for platform in manifest|no matching manifest for [a-z]+/[a-z0-9]+",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[
            r#"Failed to pull image "r/x:1": no match for platform in manifest: not found"#,
            "no matching manifest for linux/s390x in the manifest list entries",
        ],
    },
    Rule {
        cause: Cause::MissingProgram,
        pattern: r#"exec: "[^"]+": executable file not found in \$PATH"#,
        // An image of the component's lacks a program.
        except: &["OCI runtime", "container process", "containerd task", "container init", "runc create"],
        in_dumps: false,
        in_units: true,
        examples: &[r#"    x_test.go:9: exec: "kubectl": executable file not found in $PATH"#],
    },
    Rule {
        cause: Cause::HostDisk,
        pattern: r"no space left on device",
        except: &[],
        in_dumps: false,
        in_units: true,
        examples: &["write /tmp/x: no space left on device"],
    },
    Rule {
        cause: Cause::Quota,
        pattern: r"exceeded quota|(?:maximum|minimum) (?:cpu|memory|storage)[^:]* usage per|Insufficient (?:cpu|memory|pods|ephemeral-storage)",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[
            r#"pods "one" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"#,
            "0/1 nodes are available: 1 Insufficient memory.",
            r#"pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi"#,
        ],
    },
    Rule {
        cause: Cause::Webhook,
        pattern: r"failed calling webhook|conversion webhook for .+ failed|no endpoints available for service",
        except: &[],
        in_dumps: false,
        in_units: false,
        examples: &[
            r#"Internal error occurred: failed calling webhook "x.dev": failed to call webhook: Post "https://x.y.svc:443/": context deadline exceeded"#,
            "conversion webhook for tekton.dev/v1, Kind=Task failed: Post",
        ],
    },
    Rule {
        cause: Cause::Storage,
        pattern: r"FailedMount|FailedAttachVolume|MountVolume\.\S+ failed|unbound immediate PersistentVolumeClaims|ProvisioningFailed|storageclass\S* \S+ not found|persistentvolumeclaim \S+ (?:not found|is not bound)",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[
            r#"Warning  FailedMount  MountVolume.SetUp failed for volume "v""#,
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            r#"storageclass.storage.k8s.io "absent" not found"#,
        ],
    },
    Rule {
        cause: Cause::ImagePull,
        pattern: r"ImagePullBackOff|ErrImagePull|[Ff]ailed to pull (?:and unpack )?image",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[
            r"container greet of image greeter.invalid/absent:latest: {Waiting:&ContainerStateWaiting{Reason:ImagePullBackOff",
            r#"failed to pull and unpack image "x": failed to resolve reference"#,
        ],
    },
    Rule {
        // No registry is asked: whoever made the pod names an image that there cannot be, or forbids to fetch it.
        cause: Cause::Product,
        pattern: r"InvalidImageName|ErrImageNeverPull",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[r#"container greet of image GREETER: {Waiting:&ContainerStateWaiting{Reason:InvalidImageName"#],
    },
    Rule {
        cause: Cause::Node,
        pattern: r"NodeNotReady|NodeLost|Kubelet stopped posting node status|DiskPressure|MemoryPressure|untolerated taint|node\(s\) (?:were unschedulable|didn't match)|The node was low on resource",
        except: &[],
        in_dumps: true,
        in_units: false,
        examples: &[
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
            "Kubelet stopped posting node status.",
            "The node was low on resource: ephemeral-storage.",
        ],
    },
    Rule {
        cause: Cause::Apiserver,
        pattern: r"etcdserver: |the server is currently unable to handle the request|the server was unable to return a response in the time allotted|apiserver (?:is )?(?:not ready|shutting down)|the server has received too many requests|http2: (?:client connection lost|server sent GOAWAY)|leader changed|error on the server \(.*\) has prevented the request",
        except: &[],
        in_dumps: false,
        in_units: false,
        examples: &[
            "etcdserver: request timed out",
            "the server is currently unable to handle the request (get tasks.tekton.dev)",
            "http2: client connection lost",
            r#"an error on the server ("unknown") has prevented the request from succeeding"#,
        ],
    },
    Rule {
        cause: Cause::Dns,
        pattern: r"lookup \S+(?: on \S+)?: (?:no such host|server misbehaving|i/o timeout|Temporary failure|Try again)|Could not resolve host|Temporary failure in name resolution",
        except: &[],
        in_dumps: false,
        in_units: true,
        examples: &[
            r#"Get "https://greeter.invalid/api": dial tcp: lookup greeter.invalid on 10.0.0.1:53: no such host"#,
            "dial tcp: lookup x: Temporary failure in name resolution",
        ],
    },
    Rule {
        cause: Cause::Auth,
        pattern: r"x509: |tls: failed to verify certificate|the server has asked for the client to provide credentials|You must be logged in to the server|^.*: Unauthorized$|error: .*getting credentials",
        except: &[],
        in_dumps: false,
        in_units: false,
        examples: &[
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "making a namespace: Unauthorized",
            "the server has asked for the client to provide credentials",
        ],
    },
    Rule {
        cause: Cause::ClusterUnreachable,
        // The paths are the Kubernetes API's own and nobody else's, so it is a cluster that does not answer. Those that a
        // component may have as well (/healthz, /version) are for the rule that knows the server's address.
        pattern: r#"https://[^/\s"]+/(?:api/v1/(?:namespaces|nodes|pods|services|configmaps|secrets|events|serviceaccounts|persistentvolume\w*)|apis/(?:[a-z0-9.-]+\.k8s\.io|apps|batch|autoscaling|policy)/v\d\w*|apis/[a-z0-9.-]+/v\d\w*/namespaces)\b\S*:? .*(?:connection refused|connection reset by peer|i/o timeout|EOF|no route to host|network is unreachable|TLS handshake timeout|Client\.Timeout exceeded)|The connection to the server \S+ was refused|Unable to connect to the server|couldn't get current server API group list"#,
        except: &[],
        in_dumps: false,
        in_units: false,
        examples: &[
            r#"Get "https://127.0.0.1:1/api/v1/namespaces/x": dial tcp 127.0.0.1:1: connect: connection refused"#,
            r#"Post "https://10.1.2.2:6443/apis/tekton.dev/v1/namespaces/x/tasks": EOF"#,
            r#"Get "https://10.1.2.2:6443/apis/apps/v1/deployments?limit=500": net/http: TLS handshake timeout"#,
            "The connection to the server 10.1.2.2:6443 was refused - did you specify the right host or port?",
        ],
    },
    Rule {
        cause: Cause::Registry,
        pattern: r#"(?:unexpected status code|status code) 5\d\d.*/v2/|/v2/\S*:? .*(?:connection refused|i/o timeout|connection reset)|toomanyrequests:|/@v/[^"]*": dial tcp|reading https?://\S+/@v/\S+: (?:403|429|5\d\d) "#,
        except: &[],
        in_dumps: false,
        in_units: false,
        examples: &[
            r#"Get "http://10.1.2.2:5000/v2/": dial tcp 10.1.2.2:5000: connect: connection refused"#,
            "toomanyrequests: You have reached your pull rate limit",
            r#"x.go:3:2: y@v1.0.0: Get "https://proxy.example/y/@v/v1.0.0.zip": dial tcp 192.0.2.1:443: i/o timeout"#,
            "x.go:3:2: y@v1.0.0: reading https://proxy.example/y/@v/v1.0.0.zip: 403 Forbidden",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::{super::Judge, *};

    /// Words of tests that must not be taken for a fault of the infrastructure.
    const NONE: &[&str] = &[
        "    x_test.go:9: wanted 2 greetings, got 1",
        r#"    x_test.go:9: Get "http://10.96.3.4:8080/hello": dial tcp 10.96.3.4:8080: connect: connection refused"#,
        r#"    x_test.go:9: Get "http://10.96.3.4:8080/healthz": dial tcp 10.96.3.4:8080: connect: connection refused"#,
        r#"    x_test.go:9: Get "https://10.96.3.4:8443/version": dial tcp 10.96.3.4:8443: connect: connection refused"#,
        r#"    x_test.go:9: Get "https://greeter.own.svc/api/v1/greetings": dial tcp 10.96.3.4:443: i/o timeout"#,
        r#"    x_test.go:9: Get "https://greeter.own.svc/apis/greeter.dev/v1/parents/x": EOF"#,
        r#"Error: failed to create containerd task: OCI runtime create failed: runc create failed: unable to start container process: exec: "bash": executable file not found in $PATH: unknown"#,
        r#"    x_test.go:9: error during container init: exec: "bash": executable file not found in $PATH: unknown"#,
        "    x_test.go:9: unexpected EOF in the answer of the greeter",
        "    x_test.go:9: context deadline exceeded",
        "    x_test.go:9: taskrun.tekton.dev \"x\" not found",
        r#"pods is forbidden: User "system:serviceaccount:x:y" cannot list resource "pods""#,
        "running nodes 3 of 3",
        "            key: node.kubernetes.io/not-ready",
    ];

    #[test]
    fn every_rule_fits_its_examples_first() {
        let judge = Judge::default();
        for rule in RULES {
            for line in rule.examples {
                assert_eq!(judge.infrastructure(&[line], |_| true).map(|found| found.0), Some(rule.cause), "{line}");
            }
        }
    }

    #[test]
    fn a_component_s_own_faults_are_no_infrastructure() {
        let judge = Judge::new(Some("10.1.2.2:6443"));
        for line in NONE {
            assert_eq!(judge.infrastructure(&[line], |_| true), None, "{line}");
        }
    }

    #[test]
    fn the_address_of_the_server_decides() {
        for line in [
            "    x_test.go:9: dial tcp 10.1.2.2:6443: i/o timeout",
            r#"Get "https://10.1.2.2:6443/version": dial tcp 10.1.2.2:6443: connect: connection refused"#,
            r#"Get "https://10.1.2.2:6443/api": net/http: TLS handshake timeout"#,
            r#"    x_test.go:9: Get "http://10.1.2.2:6443/healthz": EOF"#,
            r#"Get "https://10.1.2.2:6443/readyz": net/http: request canceled (Client.Timeout exceeded while awaiting headers)"#,
        ] {
            assert_eq!(Judge::default().infrastructure(&[line], |_| true), None, "{line}");
            let found = Judge::new(Some("10.1.2.2:6443")).infrastructure(&[line], |_| true);
            assert_eq!(found.map(|found| found.0), Some(Cause::ClusterUnreachable), "{line}");
        }
        // By a name, which is looked up before anybody is called, and behind a path.
        let line = r#"Get "https://z.example/k8s/c-1/api": dial tcp 192.0.2.1:443: connect: connection refused"#;
        let found = Judge::new(Some("z.example/k8s/c-1")).infrastructure(&[line], |_| true);
        assert_eq!(found.map(|found| found.0), Some(Cause::ClusterUnreachable));
    }

    #[test]
    fn the_last_lines_decide_and_earlier_troubles_do_not() {
        let judge = Judge::default();
        let trouble = r#"    x.go:1: Get "https://h/api/v1/pods": dial tcp 1.2.3.4:1: connect: connection refused"#;
        let filler = "    x.go:2: still going\n".repeat(200);
        let complaint = "    x.go:3: wanted 2, got 1\n--- FAIL: TestX (0.10s)\n";
        let verdict = judge.test(&format!("=== RUN   TestX\n{trouble}\n{filler}{complaint}"));
        assert_eq!((verdict.cause, verdict.line.as_deref()), (Cause::Product, Some("x.go:3: wanted 2, got 1")));
        assert_eq!(judge.test(&format!("{filler}{trouble}\n{complaint}")).cause, Cause::ClusterUnreachable);
        assert_eq!(judge.test("=== RUN   TestX\n--- FAIL: TestX (0.00s)\n").cause, Cause::Unclassified);
    }

    #[test]
    fn what_a_test_has_got_over_is_not_its_reason() {
        let judge = Judge::default();
        let healed = "    wait.go:1: etcdserver: leader changed\n";
        let goes_on = "    x.go:2: still going\n".repeat(5);
        let complaint = "    x.go:3: wanted 2, got 1\n--- FAIL: TestX (0.10s)\n";
        assert_eq!(judge.test(&format!("{healed}{goes_on}{complaint}")).cause, Cause::Product);
        assert_eq!(judge.test(&format!("{healed}{complaint}")).cause, Cause::Apiserver, "just before it");
        // What goes on over several lines is one complaint, and what is compared is values.
        let long = format!("    x.go:3: no answer: etcdserver: leader changed\n{}", "        and more\n".repeat(9));
        assert_eq!(judge.test(&format!("{long}    x.go:4: giving up\n")).cause, Cause::Apiserver);
        let diff = "    x.go:3: -want +got:\n          v1.Pod{\n        -   Reason: \"ImagePullBackOff\",\n        +\u{a0}\u{a0}Reason: \"\",\n";
        assert_eq!(judge.test(diff).cause, Cause::Product);
    }

    #[test]
    fn a_program_s_own_end_is_its_own_fault() {
        let judge = Judge::default();
        let away = "    x.go:1: no answer: etcdserver: leader changed\n";
        for crash in
            ["panic: oh no\n\ngoroutine 1 [running]:\n", "WARNING: DATA RACE\n", "fatal error: all goroutines\n"]
        {
            assert_eq!(judge.test(&format!("{away}{crash}")).cause, Cause::Product, "{crash}");
            assert_eq!(judge.crash(away, crash).cause, Cause::Product, "in another test's log: {crash}");
            let package = judge.package(&format!("etcdserver: leader changed\n{crash}FAIL\tx\t0.1s\n"));
            assert_eq!((package.cause, package.line.as_deref()), (Cause::Product, crash.lines().next()));
        }
        let its = "panic: etcdserver: request timed out\n\ngoroutine 1 [running]:\n";
        assert_eq!((judge.test(its).cause, judge.crash("", its).cause), (Cause::Apiserver, Cause::Apiserver));
        assert_eq!(judge.crash(away, "SIGQUIT: quit\n").cause, Cause::Apiserver, "somebody else ended it");
        let filler = "a line\n".repeat(LAST);
        assert_eq!(judge.package(&format!("etcdserver: leader changed\n{filler}")).cause, Cause::Unclassified);
    }

    /// More lines than are looked at.
    const LAST: usize = 90;

    #[test]
    fn unit_tests_have_no_cluster() {
        let units = Judge::default().of_units();
        for line in [
            "    pod_test.go:9: wanted Insufficient cpu, got nothing",
            "    pod_test.go:9: ErrImagePull is not waited for",
            r#"    x_test.go:9: failed calling webhook "x""#,
        ] {
            assert_eq!(units.test(line).cause, Cause::Product, "{line}");
            assert_ne!(Judge::default().test(line).cause, Cause::Product, "{line}");
        }
        assert_eq!(units.test("    x_test.go:9: write /tmp/x: no space left on device").cause, Cause::HostDisk);
        let few = RULES.iter().filter(|rule| rule.in_units).count();
        assert!(few <= 3, "{few}");
    }

    #[test]
    fn a_component_s_own_webhook_is_its_own_fault() {
        let own = r#"    x_test.go:9: failed calling webhook "x.dev": failed to call webhook: Post "https://hook.own.svc:443/": EOF"#;
        let other = own.replace(".own.svc", ".other.svc");
        let judge = Judge::default().of_namespace(Some("own"));
        assert_eq!((judge.test(own).cause, judge.test(&other).cause), (Cause::Product, Cause::Webhook));
        assert_eq!(Judge::default().test(own).cause, Cause::Webhook, "nobody says whose it is");
    }

    #[test]
    fn a_dump_of_all_objects_is_no_complaint() {
        let judge = Judge::default();
        let failed = "    x.go:3: wanted 2, got 1\n    util.go:9: ####################\n    util.go:9: ### Dumping\n";
        let script = "        script: curl https://x || echo 'lookup x: no such host'\n    util.go:12: step: done\n";
        let verdict = judge.test(&format!("{failed}{script}"));
        assert_eq!((verdict.cause, verdict.line.as_deref()), (Cause::Product, Some("x.go:3: wanted 2, got 1")));
        assert_eq!(verdict.excerpt, ["x.go:3: wanted 2, got 1"]);
        let waiting = "            reason: ImagePullBackOff\n";
        assert_eq!(judge.test(&format!("{failed}{script}{waiting}")).cause, Cause::ImagePull);
    }

    #[test]
    fn what_deferred_functions_say_is_not_the_reason() {
        let log = "    x_test.go:3: wanted 2, got 1\n    panic.go:694: Not deleting namespace x\n";
        assert_eq!(Judge::default().test(log).line.as_deref(), Some("x_test.go:3: wanted 2, got 1"));
    }

    #[test]
    fn our_own_errors_count_only_where_one_of_our_programs_speaks() {
        let log = "error[image-missing-platform]: unit-x on node n: no image\nexit status 1\nFAIL\tx\t0.1s\n";
        assert_eq!(Judge::default().package(log).cause, Cause::Unclassified);
        let verdict = Judge::default().of_launcher().package(log);
        assert_eq!(verdict.cause, Cause::ImageMissingPlatform);
        assert!(verdict.line.as_ref().unwrap().ends_with("no image"));
        assert_eq!(Judge::default().of_launcher().package("error[none]: x").cause, Cause::Unclassified);
        assert_eq!(Judge::default().cut_off(log), None);
        let cut_off = Judge::default().of_launcher().cut_off(log).unwrap();
        assert_eq!((cut_off.cause, cut_off.line), (Cause::ImageMissingPlatform, verdict.line));
    }

    #[test]
    fn how_a_container_ended_is_said_of_its_program() {
        let log = "=== RUN   TestX\n\nthe container was ended: OOMKilled, no memory\nexit status 137\n";
        assert!(!Judge::default().says_end(log) && Judge::default().of_launcher().says_end(log));
        let line = Judge::default().of_launcher().crash("=== RUN   TestY\n", log).line.unwrap();
        assert!(line.ends_with("without a word (exit status 137, OOMKilled, no memory)"), "{line}");
    }

    #[test]
    fn crashes_and_time_outs() {
        let judge = Judge::default();
        let panic = "    x.go:1: about to\npanic: oh no\n\ngoroutine 1 [running]:\nlookup x: no such host\n";
        assert_eq!(judge.test(panic).line.as_deref(), Some("panic: oh no"));
        assert_eq!(judge.crash("", panic).cause, Cause::Product);
        let late = "panic: test timed out after 1s\n\trunning tests:\n";
        assert_eq!(judge.crash("    x.go:1: waiting\n", late).cause, Cause::TestTimeout);
        assert_eq!(judge.test(&format!("    x.go:1: no space left on device\n{late}")).cause, Cause::HostDisk);
        assert_eq!(judge.crash("", "").cause, Cause::Product);
    }
}
