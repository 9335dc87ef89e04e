//! Headers of records that Weir writes.

/// On every output record: the topic of the record that it was made from.
pub const SOURCE_TOPIC: &str = "weir-source-topic";

/// On every output record: the partition of the record that it was made from, decimal.
pub const SOURCE_PARTITION: &str = "weir-source-partition";

/// On every output record: the offset of the record that it was made from, decimal.
pub const SOURCE_OFFSET: &str = "weir-source-offset";
