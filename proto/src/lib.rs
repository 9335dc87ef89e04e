//! Weir's gRPC protocol: the stream between a taskmanager and the jobmanager, and the admin service.
//!
//! Generated types stop at the gRPC edge: both binaries turn them into `weir-common` types at once.

/// Package `weir.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("weir.v1");
}

/// Version of the taskmanager protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Oldest version of the taskmanager protocol that this build can speak.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// Metadata of a standby's answer to an admin call: `host:port` of the jobmanager that leads, as far as it knows.
pub const LEADER_ADDRESS_KEY: &str = "weir-leader-address";

/// The compiled descriptors, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weir_descriptor.bin"));
