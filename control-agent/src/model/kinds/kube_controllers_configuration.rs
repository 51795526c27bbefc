//! Settings of what keeps Calico and Kubernetes in step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ListenPort, Switch};
use crate::model::scalar::{Duration, Pattern, choices, settings};
use crate::model::{Metadata, SubnetAddr};

/// Settings of the controllers. The one that counts is `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KubeControllersConfiguration {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: KubeControllersConfigurationSpec,
}

settings! {
    /// What a [`KubeControllersConfiguration`] says. What is absent is as its line says.
    pub struct KubeControllersConfigurationSpec {
        /// The least severity written to standard output; Info.
        log_severity_screen: ControllerLogSeverity | "", "logSeverityScreen";
        /// Whether health is told; Enabled.
        health_checks: Switch | "", "healthChecks";
        /// How often etcd is told to forget; 10m, 0 for never.
        etcd_v3_compaction_period: Duration | "", "etcdV3CompactionPeriod";
        /// The port on which metrics are served; 9094, 0 for none.
        prometheus_metrics_port: ListenPort, "prometheusMetricsPort";
        /// The controllers.
        controllers: Controllers, "controllers";
        /// The port on which profiles are served; absent: none.
        debug_profile_port: ListenPort, "debugProfilePort";
    }
}

settings! {
    /// The controllers; those absent do not run.
    pub struct Controllers {
        /// Labels, host endpoints and addresses of nodes.
        node: NodeController, "node";
        /// Policy of Kubernetes.
        policy: Reconciler, "policy";
        /// Labels of pods.
        workload_endpoint: Reconciler, "workloadEndpoint";
        /// Service accounts.
        service_account: Reconciler, "serviceAccount";
        /// Namespaces.
        namespace: Reconciler, "namespace";
        /// Addresses of load balancers.
        load_balancer: LoadBalancerController, "loadBalancer";
        /// Names of policies of older versions.
        policy_migration: PolicyMigration, "policyMigration";
    }
}

settings! {
    /// Labels, host endpoints and addresses of nodes.
    pub struct NodeController {
        /// How often all is compared; 5m.
        reconciler_period: Duration | "", "reconcilerPeriod";
        /// Whether labels are copied; Enabled.
        sync_labels: Switch | "", "syncLabels";
        /// The host endpoints.
        host_endpoint: AutoHostEndpoints, "hostEndpoint";
        /// After how long an address that nobody claims is free; 15m, 0 for never.
        leak_grace_period: Duration | "", "leakGracePeriod";
    }
}

settings! {
    /// Host endpoints made for nodes.
    pub struct AutoHostEndpoints {
        /// Whether any are; Disabled.
        auto_create: Switch | "", "autoCreate";
        /// Whether each node gets one for all of its interfaces; Enabled.
        create_default_host_endpoint: Switch | "", "createDefaultHostEndpoint";
        /// What others are made from.
        templates: Vec<HostEndpointTemplate>, "templates";
    }
}

settings! {
    /// What host endpoints are made from.
    pub struct HostEndpointTemplate {
        /// What their names end in.
        generate_name: String | "", "generateName";
        /// Only the nodes' addresses in these.
        interface_cidrs: Vec<SubnetAddr>, "interfaceCIDRs";
        /// One for each interface of such a name.
        interface_pattern: Pattern | "", "interfacePattern";
        /// Their labels.
        labels: BTreeMap<String, String>, "labels";
        /// Their annotations.
        annotations: BTreeMap<String, String>, "annotations";
        /// Only for nodes with such labels.
        node_selector: String | "", "nodeSelector";
    }
}

settings! {
    /// A controller with nothing to set but its pace.
    pub struct Reconciler {
        /// How often all is compared; 5m.
        reconciler_period: Duration | "", "reconcilerPeriod";
    }
}

settings! {
    /// Addresses of load balancers.
    pub struct LoadBalancerController {
        /// Which services get them; AllServices.
        assign_ips: AssignIps | "", "assignIPs";
    }
}

settings! {
    /// Names of policies of older versions.
    pub struct PolicyMigration {
        /// Whether they are changed; Enabled.
        enabled: Switch | "", "enabled";
    }
}

choices! {
    /// How much is written.
    ControllerLogSeverity { /// Nothing.
        None, /// What helps to find faults.
        Debug, /// What happens.
        Info, /// What may need attention.
        Warning, /// What failed.
        Error, /// What ended the process.
        Fatal, /// What should never be.
        Panic }

    /// Which services get addresses.
    AssignIps { /// All.
        AllServices, /// Those that ask.
        RequestedServicesOnly }
}
