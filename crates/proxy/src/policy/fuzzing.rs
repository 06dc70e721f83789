//! See [`crate::fuzzing`].

use super::cache::control::{Control, TIME_MAX};
use super::coding::Coding;
use super::etag;

fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    input.split(|b| *b == b'\n')
}

pub(crate) fn cache_control(input: &[u8]) {
    let control = Control::of(lines(input));
    assert!(control.present);
    for time in [control.max_age, control.s_maxage, control.stale_while_revalidate, control.stale_if_error] {
        assert!(time.is_none_or(|time| time <= TIME_MAX), "{time:?}");
    }
    // Said twice is said once.
    let twice = Control::of(lines(input).chain(lines(input)));
    let of =
        |control: &Control| (control.no_store, control.no_cache, control.private, control.must_revalidate);
    assert_eq!(of(&twice), of(&control));
}

pub(crate) fn accept_encoding(input: &[u8]) {
    let list = input.iter().map(|b| if *b == b'\n' { b',' } else { *b }).collect::<Vec<u8>>();
    assert_eq!(Coding::preferred(lines(input)), Coding::preferred(std::iter::once(&list[..])));
}

pub(crate) fn entity_tags(input: &[u8]) {
    let unmarked = etag::unmarked(input);
    assert!(unmarked.len() <= input.len());
    let marked = etag::marked(input);
    if *marked != *input {
        assert_eq!(&*etag::unmarked(&marked), input);
        assert!(etag::holds_marked(&marked, input));
        // In a list as well, and beside others.
        let list = [&b"\"a\", "[..], &marked, b" , W/\"b\""].concat();
        assert!(etag::holds_marked(&list, input));
        assert_eq!(&*etag::unmarked(&list), [&b"\"a\", "[..], input, b" , W/\"b\""].concat());
    }
}
