"""Known values of the fields that name a kind.

All but `Environment` are open: a field takes any other text too, since the published
lists differ from each other and grow. `UNKNOWN` is a placeholder of the Python SDK.
"""

from enum import StrEnum

__all__ = [
    "ATTAuthorizationStatus",
    "ApplicationOS",
    "ApplicationTransitionType",
    "CCPAPurpose",
    "CommerceCustomEventType",
    "CustomEventType",
    "DataConnectionType",
    "DeviceOrientation",
    "Environment",
    "EventType",
    "IdentityType",
    "MediaAction",
    "MediaFormat",
    "MediaQuality",
    "Platform",
    "Pod",
    "ProductActionType",
    "ProfileEventType",
    "PromotionActionType",
    "PushApplicationState",
    "PushMessageBehavior",
    "PushMessageType",
    "PushNetwork",
    "RateLimitScope",
    "SourceChannel",
    "SystemNotificationType",
]


class Environment(StrEnum):
    """Keeps test data apart from live data. The one list that is closed."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class EventType(StrEnum):
    """The shape of an event."""

    SESSION_START = "session_start"
    SESSION_END = "session_end"
    SCREEN_VIEW = "screen_view"
    CUSTOM_EVENT = "custom_event"
    CRASH_REPORT = "crash_report"
    OPT_OUT = "opt_out"
    FIRST_RUN = "first_run"
    PRE_ATTRIBUTION = "pre_attribution"
    PUSH_REGISTRATION = "push_registration"
    APPLICATION_STATE_TRANSITION = "application_state_transition"
    PUSH_MESSAGE = "push_message"
    NETWORK_PERFORMANCE = "network_performance"
    BREADCRUMB = "breadcrumb"
    PROFILE = "profile"
    PUSH_REACTION = "push_reaction"
    COMMERCE_EVENT = "commerce_event"
    USER_ATTRIBUTE_CHANGE = "user_attribute_change"
    USER_IDENTITY_CHANGE = "user_identity_change"
    UNINSTALL = "uninstall"


class CustomEventType(StrEnum):
    """The category of a custom event."""

    OTHER = "other"
    LOCATION = "location"
    SEARCH = "search"
    TRANSACTION = "transaction"
    USER_CONTENT = "user_content"
    USER_PREFERENCE = "user_preference"
    SOCIAL = "social"
    MEDIA = "media"
    ATTRIBUTION = "attribution"
    NAVIGATION = "navigation"
    UNKNOWN = "unknown"


class CommerceCustomEventType(StrEnum):
    """The category the server derives for a commerce event."""

    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    CHECKOUT = "checkout"
    CHECKOUT_OPTION = "checkout_option"
    CLICK = "click"
    VIEW_DETAIL = "view_detail"
    PURCHASE = "purchase"
    REFUND = "refund"
    PROMOTION_VIEW = "promotion_view"
    PROMOTION_CLICK = "promotion_click"
    ADD_TO_WISHLIST = "add_to_wishlist"
    REMOVE_FROM_WISHLIST = "remove_from_wishlist"
    IMPRESSION = "impression"
    NAVIGATION = "navigation"
    LOCATION = "location"
    SEARCH = "search"
    TRANSACTION = "transaction"
    USER_CONTENT = "user_content"
    USER_PREFERENCE = "user_preference"
    SOCIAL = "social"
    OTHER = "other"
    MEDIA = "media"
    ATTRIBUTION = "attribution"
    CONSENT_GRANTED = "consent_granted"
    CONSENT_DENIED = "consent_denied"


class IdentityType(StrEnum):
    """The kind of an identity: the fields of `UserIdentities`."""

    OTHER = "other"
    CUSTOMER_ID = "customer_id"
    FACEBOOK = "facebook"
    TWITTER = "twitter"
    GOOGLE = "google"
    MICROSOFT = "microsoft"
    YAHOO = "yahoo"
    EMAIL = "email"
    ALIAS = "alias"
    FACEBOOK_CUSTOM_AUDIENCE_ID = "facebook_custom_audience_id"
    OTHER_ID_2 = "other_id_2"
    OTHER_ID_3 = "other_id_3"
    OTHER_ID_4 = "other_id_4"
    OTHER_ID_5 = "other_id_5"
    OTHER_ID_6 = "other_id_6"
    OTHER_ID_7 = "other_id_7"
    OTHER_ID_8 = "other_id_8"
    OTHER_ID_9 = "other_id_9"
    OTHER_ID_10 = "other_id_10"
    MOBILE_NUMBER = "mobile_number"
    PHONE_NUMBER_2 = "phone_number_2"
    PHONE_NUMBER_3 = "phone_number_3"


class ATTAuthorizationStatus(StrEnum):
    """The user's answer to Apple's App Tracking Transparency prompt."""

    AUTHORIZED = "authorized"
    DENIED = "denied"
    NOT_DETERMINED = "not_determined"
    RESTRICTED = "restricted"


class ProductActionType(StrEnum):
    """What was done to a product."""

    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    CHECKOUT = "checkout"
    CHECKOUT_OPTION = "checkout_option"
    CLICK = "click"
    VIEW_DETAIL = "view_detail"
    PURCHASE = "purchase"
    REFUND = "refund"
    ADD_TO_WISHLIST = "add_to_wishlist"
    REMOVE_FROM_WISHLIST = "remove_from_wish_list"
    """Really spelt so on the wire, unlike `ADD_TO_WISHLIST`."""
    UNKNOWN = "unknown"


class PromotionActionType(StrEnum):
    """What was done to a promotion."""

    UNKNOWN = "unknown"
    VIEW = "view"
    CLICK = "click"


class ApplicationTransitionType(StrEnum):
    """A step in the life of an app."""

    UNKNOWN = "unknown"
    INITIALIZED = "application_initialized"
    EXIT = "application_exit"
    BACKGROUND = "application_background"
    FOREGROUND = "application_foreground"


class ProfileEventType(StrEnum):
    """What happened to a profile."""

    UNKNOWN = "unknown"
    SIGNUP = "signup"
    LOGIN = "login"
    LOGOUT = "logout"
    UPDATE = "update"
    DELETE = "delete"


class PushMessageType(StrEnum):
    """The stage a push notification has reached."""

    UNKNOWN = "unknown"
    SENT = "sent"
    RECEIVED = "received"
    ACTION = "action"


class PushApplicationState(StrEnum):
    """What the app was doing when a push notification arrived."""

    UNKNOWN = "unknown"
    NOT_RUNNING = "not_running"
    BACKGROUND = "background"
    FOREGROUND = "foreground"


class PushMessageBehavior(StrEnum):
    """How a push notification was seen or opened."""

    RECEIVED = "Received"
    DIRECT_OPEN = "DirectOpen"
    READ = "Read"
    INFLUENCED_OPEN = "InfluencedOpen"
    DISPLAYED = "Displayed"


class Platform(StrEnum):
    """The platform of a device."""

    UNKNOWN = "Unknown"
    IOS = "iOS"
    ANDROID = "Android"
    WEB = "web"
    TVOS = "tvOS"
    ROKU = "roku"
    OUT_OF_BAND = "out_of_band"
    ALEXA = "alexa"
    SMART_TV = "smart_tv"
    FIRE_TV = "fire_tv"
    XBOX = "xbox"
    DESKTOP = "desktop"
    FIRE_TV_JAVA = "FireTV"
    """What the Java SDK sends for `FIRE_TV`."""


class DeviceOrientation(StrEnum):
    """How a screen is held. The capitals are those of the API."""

    UNKNOWN = "unknown"
    PORTRAIT = "portrait"
    PORTRAIT_UPSIDE_DOWN = "portrait_upside_down"
    LANDSCAPE = "landscape"
    LANDSCAPE_LEFT = "LandscapeLeft"
    LANDSCAPE_RIGHT = "LandscapeRight"
    FACE_UP = "FaceUp"
    FACE_DOWN = "FaceDown"
    SQUARE = "Square"


class ApplicationOS(StrEnum):
    """The operating system of an app; spelt unlike `Platform`."""

    IOS = "IOS"
    ANDROID = "Android"
    WINDOWS_PHONE = "WindowsPhone"
    MOBILE_WEB = "MobileWeb"
    UNITY_IOS = "UnityIOS"
    UNITY_ANDROID = "UnityAndroid"
    DESKTOP = "Desktop"
    TVOS = "TVOS"
    ROKU = "Roku"
    OUT_OF_BAND = "OutOfBand"
    ALEXA = "Alexa"
    SMART_TV = "SmartTV"
    FIRE_TV = "FireTV"
    XBOX = "Xbox"
    UNKNOWN = "Unknown"


class SourceChannel(StrEnum):
    """The way a batch came to mParticle."""

    UNKNOWN = "unknown"
    NATIVE = "native"
    JAVASCRIPT = "javascript"
    PIXEL = "pixel"
    DESKTOP = "desktop"
    PARTNER = "partner"
    SERVER_TO_SERVER = "server_to_server"
    ALL = "All"


class SystemNotificationType(StrEnum):
    """What the server notifies of."""

    GDPR_CHANGE = "gdpr_change"


class MediaAction(StrEnum):
    """What happened to the playback."""

    UNKNOWN = "unknown"
    PLAY = "play"
    STOP = "stop"
    UPDATE_PLAYBACK_POSITION = "update_playback_position"
    SKIP = "skip"
    RATE = "rate"


class MediaFormat(StrEnum):
    """What is played."""

    UNKNOWN = "unknown"
    AUDIO = "audio"
    VIDEO = "video"


class MediaQuality(StrEnum):
    """The quality of a stream."""

    UNKNOWN = "unknown"
    LOW = "low"
    SD = "sd"
    MEDIUM = "medium"
    HD = "hd"
    ULTRA_HD = "ultra_hd"


class DataConnectionType(StrEnum):
    """How a device is connected."""

    OFFLINE = "offline"
    WIFI = "wifi"
    MOBILE = "mobile"


class PushNetwork(StrEnum):
    """The network that delivers a push notification."""

    APN = "apn"
    GCM = "gcm"


class RateLimitScope(StrEnum):
    """Which limit a 429 answer speaks of."""

    ORG = "org"
    ACCOUNT = "account"
    APP = "app"
    FEED = "feed"
    WORKSPACE = "workspace"
    SYSTEM = "system"
    ACCELERATION = "acceleration"


class Pod(StrEnum):
    """The data centre of a workspace."""

    US1 = "us1"
    US2 = "us2"
    EU1 = "eu1"
    AU1 = "au1"


class CCPAPurpose(StrEnum):
    """The one purpose the CCPA knows."""

    DATA_SALE_OPT_OUT = "data_sale_opt_out"
