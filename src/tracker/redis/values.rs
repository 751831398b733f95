//! What the store has answered, read without trust: anything may have written to it.

use redis::Value;

/// The bytes of an answer, if it is a text.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

/// A number, also if it is written as a text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// A number with a fraction, of which none is infinite.
pub(super) fn float(value: &Value) -> Option<f64> {
    let float = match value {
        Value::Double(float) => *float,
        Value::Int(number) => *number as f64,
        other => text(other)?.parse().ok()?,
    };
    float.is_finite().then_some(float)
}

/// The parts of an answer. None if it has no parts.
pub(super) fn parts(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) | Value::Set(parts) => parts,
        _ => &[],
    }
}
