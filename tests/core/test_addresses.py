from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.addresses import (
    MAX_HOPS,
    UNKNOWN,
    NetworkMap,
    address_subject,
    client_address,
    parse_networks,
)

PROXY = "10.0.0.1"
PROXIES = ["10.0.0.0/8", "2001:db8:ff::/48"]

addresses = st.ip_addresses().map(lambda address: getattr(address, "ipv4_mapped", None) or address)


def from_header(value: str, header: str = "X-Forwarded-For", peer: str = PROXY) -> str:
    return client_address(peer, {header: value}, trusted_proxies=PROXIES, header=header)


@pytest.mark.parametrize(
    ("peer", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7\t", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]:_port", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25en1]:80", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:102:304", "1.2.3.4"),
        ("[::FFFF:1.2.3.4]:80", "1.2.3.4"),
        ("2001:db8::1.2.3.4", "2001:db8::102:304"),
    ],
)
def test_an_address_has_one_spelling(peer: str, canonical: str) -> None:
    assert client_address(peer, {}, trusted_proxies=[]) == canonical


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "unix:",
        "/run/gunicorn.sock",
        "localhost",
        "1.2.3",
        "01.2.3.4",
        "1.2.3.4.5",
        "1.2.3.256",
        "1.2.3.4%eth0",
        "[1.2.3.4]",
        "1.2.3.4, 5.6.7.8",
        "16909060",
        "0x1020304",
        "\u0661.2.3.4",
        "1.2.3.4\x00",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:123456",
        "1.2.3.4:",
        "2001:db8::1::2",
        "a" * 100_000,
    ],
)
def test_a_peer_without_an_address_is_always_the_same_client(peer: str) -> None:
    assert client_address(peer, {}, trusted_proxies=[]) == UNKNOWN


def test_a_socket_can_be_listed_as_a_trusted_proxy() -> None:
    headers = {"X-Forwarded-For": "192.0.2.7"}
    assert client_address("", headers, trusted_proxies=PROXIES) == UNKNOWN
    assert client_address("", headers, trusted_proxies=[UNKNOWN]) == "192.0.2.7"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
@pytest.mark.parametrize("proxies", [[], PROXIES])
def test_the_header_of_an_untrusted_peer_counts_for_nothing(
    header: str, proxies: list[str]
) -> None:
    headers = {header: "for=198.51.100.1" if header == "Forwarded" else "198.51.100.1"}
    found = client_address("192.0.2.7", headers, trusted_proxies=proxies, header=header)
    assert found == "192.0.2.7"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.9.9.9", "192.0.2.7"),
        ("6.6.6.6,192.0.2.7,[2001:db8:ff::2]:80 , 10.9.9.9:1234", "192.0.2.7"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("::ffff:10.1.1.1, ::ffff:10.2.2.2", "10.1.1.1"),
        ("", PROXY),
        (",", PROXY),
    ],
)
def test_the_chain_is_walked_to_the_first_untrusted_hop(chain: str, client: str) -> None:
    assert from_header(chain) == client


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, unknown", PROXY),
        ("6.6.6.6, _hidden, 10.2.2.2", "10.2.2.2"),
        ("6.6.6.6, , 10.2.2.2", "10.2.2.2"),
        ("6.6.6.6, 1.2.3.4.5, 10.2.2.2", "10.2.2.2"),
        ("6.6.6.6 10.2.2.2", PROXY),
        ("6.6.6.6, <script>, 10.2.2.2", "10.2.2.2"),
    ],
)
def test_an_unparsable_hop_stops_the_walk(chain: str, client: str) -> None:
    assert from_header(chain) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("FOR=192.0.2.60", "192.0.2.60"),
        ('for="192.0.2.60:4711"', "192.0.2.60"),
        ('for="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
        ('proto=https; for="[2001:DB8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('for="[2001:db8:cafe::17]:_port"', "2001:db8:cafe::17"),
        ("for=[2001:db8:cafe::17]", "2001:db8:cafe::17"),
        ('for="\\1\\92.0.2.60"', "192.0.2.60"),
        ("for=6.6.6.6, for=192.0.2.43, for=10.2.2.2", "192.0.2.43"),
        ('for=6.6.6.6, for=192.0.2.43;host="a, for=7.7.7.7"', "192.0.2.43"),
        ('for=192.0.2.43;host="a;for=7.7.7.7"', "192.0.2.43"),
        ('for=192.0.2.43;host="a\\";for=7.7.7.7"', "192.0.2.43"),
        ('for=", for=192.0.2.43', "192.0.2.43"),
        ('for="\\", for=192.0.2.43', "192.0.2.43"),
    ],
)
def test_forwarded_is_read_as_in_its_rfc(value: str, client: str) -> None:
    assert from_header(value, "Forwarded") == client


@pytest.mark.parametrize(
    "value",
    [
        "for=unknown",
        "for=_gazonk",
        'for="_gazonk"',
        "by=203.0.113.43;proto=http",
        "for=6.6.6.6;for=192.0.2.43",
        "for",
        "for=",
        'for="',
        'for="192.0.2.43',
        "for=192.0.2.43 6.6.6.6",
        "for:192.0.2.43",
        "192.0.2.43",
        ";for=192.0.2.43",
        "=192.0.2.43",
    ],
)
def test_an_unparsable_element_of_forwarded_stops_the_walk(value: str) -> None:
    assert from_header(f"for=6.6.6.6, {value}", "Forwarded") == PROXY


def test_a_single_value_header_is_read() -> None:
    assert from_header(" 192.0.2.7 ", "X-Real-IP") == "192.0.2.7"


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"])
def test_the_case_of_the_headers_name_does_not_matter(name: str) -> None:
    headers = {"Host": "example.org", name: "192.0.2.7"}
    assert client_address(PROXY, headers, trusted_proxies=PROXIES) == "192.0.2.7"


def test_several_header_lines_are_one_list() -> None:
    headers = {"x-forwarded-for": "6.6.6.6", "X-FORWARDED-FOR": "192.0.2.7, 10.2.2.2"}
    assert client_address(PROXY, headers, trusted_proxies=PROXIES) == "192.0.2.7"


@pytest.mark.parametrize(
    ("hops", "client"),
    [(0, "203.0.113.9"), (1, "10.2.2.2"), (2, "192.0.2.7"), (3, "6.6.6.6"), (9, "6.6.6.6")],
)
def test_a_number_of_proxies_is_trusted_whatever_their_addresses(hops: int, client: str) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.2.2.2"}
    assert client_address("203.0.113.9", headers, trusted_proxies=hops) == client


def test_an_unparsable_hop_stops_the_counting_of_proxies() -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, unknown, 10.2.2.2"}
    assert client_address("203.0.113.9", headers, trusted_proxies=3) == "10.2.2.2"


@pytest.mark.parametrize("hops", [-1, True])
def test_an_impossible_number_of_proxies_is_refused(hops: int) -> None:
    with pytest.raises(ValueError, match="trusted_proxies must be a number"):
        client_address(PROXY, {}, trusted_proxies=hops)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_walk_over_very_many_proxies_ends_at_the_last_it_may_reach(header: str) -> None:
    prefix = "for=" if header == "Forwarded" else ""
    hops = [f"{prefix}10.{number // 250}.{number % 250}.1" for number in range(20_000)]
    assert from_header(", ".join(hops), header) == hops[-MAX_HOPS].removeprefix(prefix)


@pytest.mark.parametrize("value", ['"' * 100_000, "," * 100_000, 'for="\\' * 50_000, " " * 100_000])
def test_a_hostile_header_stops_the_walk_at_once(value: str) -> None:
    assert from_header(value) == PROXY
    assert from_header(value, "Forwarded") == PROXY


@pytest.mark.parametrize(("length", "client"), [(100, "fe80::1"), (101, PROXY)])
def test_an_address_longer_than_any_is_not_read(length: int, client: str) -> None:
    assert from_header("fe80::1%".ljust(length, "z")) == client


@given(st.lists(addresses, max_size=8), addresses)
def test_the_client_is_the_last_hop_before_the_trusted_ones(
    hops: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    trusted = [str(hop) for hop in hops if hop != client]
    chain = ", ".join(["6.6.6.6", str(client), *trusted])
    found = client_address(PROXY, {"X-Forwarded-For": chain}, trusted_proxies=[PROXY, *trusted])
    expected = "6.6.6.6" if str(client) == PROXY else str(client)
    assert found == expected


@given(st.text(), st.text() | st.text('for="\\;,[]:. 10'), st.sampled_from(["Forwarded", "X"]))
def test_no_request_raises_and_every_answer_is_canonical(
    peer: str, value: str, header: str
) -> None:
    for remote_addr in (peer, PROXY):
        found = client_address(remote_addr, {header: value}, trusted_proxies=PROXIES, header=header)
        assert found == str(ipaddress.ip_address(found))
        assert address_subject(found).startswith("ip:")


@given(
    st.lists(st.tuples(addresses, st.integers(0, 128)), max_size=12),
    st.lists(addresses, max_size=5),
)
def test_networks_hold_exactly_their_addresses(
    blocks: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]],
    asked: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    networks = [
        ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)
        for address, bits in blocks
    ]
    parsed = parse_networks([str(network) for network in networks])
    asked += [address for network in networks for address in (network[0], network[-1])]
    asked += [network[-1] + 1 for network in networks if int(network[-1]) + 1 < 2**32]
    for address in asked:
        if getattr(address, "ipv4_mapped", None) is None:
            assert parsed.contains(str(address)) is any(address in net for net in networks)


@given(
    st.lists(
        st.lists(
            st.builds(
                lambda first, bits: f"10.0.0.{first >> 32 - bits << 32 - bits}/{bits}",
                st.integers(0, 255),
                st.integers(24, 32),
            )
            | st.sampled_from(["0.0.0.0/0", "10.0.0.5", "::/0", "2001:db8::/32", "2001:db8::1"]),
            max_size=4,
        ),
        max_size=5,
    ),
    st.integers(0, 255).map("10.0.0.{}".format)
    | st.sampled_from(["10.0.1.0", UNKNOWN, "255.255.255.255", "::", "2001:db8::1", "unknown"]),
)
def test_a_map_tells_whose_networks_hold_an_address(owned: list[list[str]], address: str) -> None:
    networks = [parse_networks(texts) for texts in owned]
    found = NetworkMap([(each, place) for place, each in enumerate(networks)]).owners(address)
    assert list(found) == [place for place, n in enumerate(networks) if n.contains(address)]


def test_a_mapped_network_holds_ipv4_addresses() -> None:
    networks = parse_networks(["::ffff:10.0.0.0/104"])
    assert networks.contains("10.1.2.3")
    assert not networks.contains("11.1.2.3")


def test_what_is_no_address_is_in_no_network() -> None:
    assert not parse_networks(["0.0.0.0/0", "::/0"]).contains("unknown")


def test_no_networks_are_false() -> None:
    assert not parse_networks([])
    assert parse_networks(["10.0.0.1"])


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "", "10.0.0.0/8,"])
def test_a_wrong_network_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a network such as 10\.0\.0\.0/8") as refusal:
        parse_networks(["192.0.2.0/24", text])
    assert repr(text) in str(refusal.value)
    with pytest.raises(ValueError, match="is not a network"):
        client_address(PROXY, {}, trusted_proxies=[text])


def test_one_string_is_not_a_list_of_networks() -> None:
    with pytest.raises(ValueError, match=r"must be a list, such as \['10.0.0.0/8'\]"):
        parse_networks("10.0.0.0/8")


@pytest.mark.parametrize(
    ("address", "prefix", "subject"),
    [
        ("192.0.2.7", 64, "ip:192.0.2.7"),
        ("192.0.2.7", 32, "ip:192.0.2.7"),
        ("2001:db8::1", 64, "ip:2001:db8::/64"),
        ("2001:db8:0:0:ffff::9", 64, "ip:2001:db8::/64"),
        ("2001:db8:1:2ff::1", 56, "ip:2001:db8:1:200::/56"),
        ("2001:db8::1", 128, "ip:2001:db8::1/128"),
        ("ffff::1", 1, "ip:8000::/1"),
        ("::ffff:1.2.3.4", 64, "ip:1.2.3.4"),
        ("garbage", 64, f"ip:{UNKNOWN}"),
    ],
)
def test_ipv6_addresses_are_grouped_and_ipv4_addresses_are_not(
    address: str, prefix: int, subject: str
) -> None:
    assert address_subject(address, prefix) == subject


@given(st.ip_addresses(v=6), st.integers(1, 128))
def test_a_group_is_the_network_of_its_address(address: ipaddress.IPv6Address, prefix: int) -> None:
    if address.ipv4_mapped is None:
        network = ipaddress.ip_network((address, prefix), strict=False)
        assert address_subject(str(address), prefix) == f"ip:{network}"


@pytest.mark.parametrize("prefix", [0, 129, -1])
def test_an_impossible_prefix_is_refused(prefix: int) -> None:
    with pytest.raises(ValueError, match="ipv6_prefix must be from 1 to 128"):
        address_subject("::1", prefix)
