//! Positions and their texts.

use lifeboat_model::{ErrorKind, Lsn, Timeline};
use proptest::prelude::*;

#[test]
fn positions_are_written_as_the_server_writes_them() {
    for (number, text) in [
        (0, "0/0"),
        (0x16_b374_d848, "16/B374D848"),
        (0x1_0000_0000, "1/0"),
        (u64::MAX, "FFFFFFFF/FFFFFFFF"),
    ] {
        assert_eq!(Lsn(number).to_string(), text);
        assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(number));
    }
    assert_eq!("0/0b374d8".parse::<Lsn>().unwrap(), Lsn(0xb3_74d8));
}

#[test]
fn what_is_no_position_is_refused() {
    for text in [
        "",
        "/",
        "0",
        "0/",
        "/0",
        "0/0/0",
        "+1/0",
        "1/-1",
        "0/ 1",
        "123456789/0",
        "0/123456789",
        "g/0",
        "0x1/0",
    ] {
        assert_eq!(text.parse::<Lsn>().unwrap_err().kind(), ErrorKind::Usage, "{text:?}");
    }
    assert_eq!(Timeline::new(0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!("0".parse::<Timeline>().unwrap_err().kind(), ErrorKind::Corrupt);
    for text in ["", "-1", "1a", "4294967296"] {
        assert_eq!(text.parse::<Timeline>().unwrap_err().kind(), ErrorKind::Usage, "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_position_reads_back(number: u64) {
        prop_assert_eq!(Lsn(number).to_string().parse::<Lsn>().unwrap(), Lsn(number));
    }
}
