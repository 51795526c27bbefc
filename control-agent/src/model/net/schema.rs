//! JSON Schema of what is written as text or as a number.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Cidr, IpVersion, Port, Protocol, SubnetAddr};

macro_rules! schemas {
    ($($name:ident: $schema:expr;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

schemas! {
    Cidr: json_schema!({
        "type": "string",
        "description": "A prefix without bits behind its length, as in 10.0.0.0/8, or an address",
    });
    SubnetAddr: json_schema!({
        "type": "string",
        "description": "An address, with or without the length of its subnet, as in 10.0.0.7/24",
    });
    Port: json_schema!({
        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "type": "string" }],
        "description": "A port, a range as in \"80:90\", or a port's name",
    });
    Protocol: json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 255 },
            { "type": "string" },
        ],
        "description": "An IP protocol: TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or its number",
    });
    IpVersion: json_schema!({ "enum": [4, 6] });
}
