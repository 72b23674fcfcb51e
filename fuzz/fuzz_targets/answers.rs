//! Feeds arbitrary bytes as a backend's answer to the question whether a client may connect:
//! without an ACK nobody is admitted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::mavis::attributes::{self, value, Attributes};
use mavis::mavis::chain::Verdict;
use mavis::mavis::queries::Decision;
use mavis::os::malloc::Owned;

fuzz_target!(|data: &[u8]| {
    let Some((&verdict, text)) = data.split_first() else {
        return;
    };
    let verdict = Verdict(i32::from(verdict as i8));
    let mut answer = Attributes::default();
    answer.decode(text, |_| true);
    let acknowledged = answer.is(attributes::RESULT, value::ACK);
    let decision = Decision::of(verdict, &Some(Owned::new(answer)));
    let admitted = matches!(decision, Decision::Admit(_));
    assert_eq!(admitted, acknowledged && verdict == Verdict::FINAL);
    assert!(!matches!(Decision::of(verdict, &None), Decision::Admit(_)));
});
