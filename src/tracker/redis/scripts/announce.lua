-- A BitTorrent client announces a torrent: it owns this one content, until it comes no more.
-- KEYS: info, rate, owners, sum, due, hosts, ids. ARGV: ref, id in hex, what it calls itself
-- (20 bytes), host, lease in ms, whether it has all ('1' or '0'), whether it has just got it
-- ('1'), what the list has of it behind the digit, score of those that nobody has measured; most
-- clients of the host here, most owners, whether there may be more peers, and more contents.
-- Returns 'ok', or why it is refused: 'host', 'owners', 'peers', 'new', or 'taken' if the
-- reference is in use.
local known = redis.call('HGET', KEYS[3], ARGV[1])
local host = ARGV[4]
if known then
    if string.sub(known, 2) ~= ARGV[8] then
        return 'taken'
    end
    host = string.sub(redis.call('HGET', KEYS[7], ARGV[1]) or '', 21)
else
    if tonumber(redis.call('HGET', KEYS[6], host) or '0') >= tonumber(ARGV[10]) then
        return 'host'
    end
    if ARGV[12] ~= '1' then
        return 'peers'
    end
    local owners = redis.call('HLEN', KEYS[3])
    if owners >= tonumber(ARGV[11]) then
        return 'owners'
    end
    if owners == 0 then
        if ARGV[13] ~= '1' then
            return 'new'
        end
        -- Nobody says how long a torrent is.
        redis.call('HSET', KEYS[1], 'length', 0)
        redis.call('HINCRBY', KEYS[4], 'contents', 1)
    end
    redis.call('HINCRBY', KEYS[6], host, 1)
    redis.call('ZADD', KEYS[2], ARGV[9], ARGV[1])
end
local had = known and string.sub(known, 1, 1) or '0'
if had ~= ARGV[6] then
    redis.call('HINCRBY', KEYS[1], 'complete', ARGV[6] == '1' and 1 or -1)
end
if had == '0' and ARGV[6] == '1' and ARGV[7] == '1' then
    redis.call('HINCRBY', KEYS[1], 'downloaded', 1)
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[6] .. ARGV[8])
redis.call('HSET', KEYS[7], ARGV[1], ARGV[3] .. host)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[5]), ARGV[2] .. '/' .. ARGV[1])
return 'ok'
