//! Headers of records that Weir writes. A record of the replay topic says where its input was first read, in the
//! headers of an output record.

/// On every output record: the topic of the record that it was made from.
pub const SOURCE_TOPIC: &str = "weir-source-topic";

/// On every output record: the partition of the record that it was made from, decimal.
pub const SOURCE_PARTITION: &str = "weir-source-partition";

/// On every output record: the offset of the record that it was made from, decimal.
pub const SOURCE_OFFSET: &str = "weir-source-offset";

/// On every record of the replay topic: the error event for which it was sent through again, `partition:offset`.
pub const REPLAYED_ERROR: &str = "weir-replayed-error";
